"""Reads what `peftc run` leaves for other tools, with these tools. Run by hand:

    python read_logs.py card FOLDER             # huggingface_hub 2.4.0
    python read_logs.py tensorboard DIR         # tensorboard 2.21.0
    MLFLOW_ALLOW_FILE_STORE=true python read_logs.py mlflow DIR     # mlflow-skinny 3.17.2

`python read_logs.py event` prints the bytes of the event that the test of `src/cli/logs/tensorboard.rs` compares with.
"""

import sys


def card(folder):
    from huggingface_hub import ModelCard

    own = ModelCard.load(f"{folder}/README.md")
    print(own.data.to_dict())
    for result in own.data.eval_results or []:
        print(result.task_type, result.dataset_name, result.metric_type, result.metric_value)


def tensorboard(folder):
    import glob

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stage in sorted(glob.glob(f"{folder}/*")):
        own = EventAccumulator(stage)
        own.Reload()
        print(stage, own.Tags())
        for tag in own.Tags()["scalars"]:
            print(tag, [(e.step, e.value) for e in own.Scalars(tag)])
        for tag in own.Tags()["tensors"]:
            print(tag, own.Tensors(tag)[0].tensor_proto.string_val)


def mlflow(folder):
    import os

    from mlflow.tracking import MlflowClient

    client = MlflowClient("file:" + os.path.abspath(folder))
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            print(experiment.name, run.info.run_name, run.info.status, run.data.params, run.data.metrics)
            for name in run.data.metrics:
                print(name, [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)])


def event():
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])
    print(Event(wall_time=1.5, step=300, summary=summary).SerializeToString().hex())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
