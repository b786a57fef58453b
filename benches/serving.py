"""A load on `peftc serve`: many clients ask eight side networks, or eight adapters, on one model.

Three ways are compared: one server with all eight, one server for each, and one server that computes one row at a time.
Every answer is compared with that of `peftc predict`; what is lost or differs ends the script with an error.

    python3 benches/serving.py [--program target/release/peftc] [--model recipes/reviews-mini] [--clients 64] [--requests 20]
                               [--methods side|lora|mixed]

Only Python's standard library is used. Clients run on the same machine and share its processor with the servers.
"""

import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

METHODS = {
    "side": [
        "lst { r = 2 }",
        "lst { r = 4 }",
        "lst { r = 8 }",
        "k_lst { k = 3, r = 2 }",
        "k_lst { k = 3, r = 4 }",
        "k_lst { k = 3, r = 8 }",
        "k_lst { k = 1, r = 4 }",
        "k_lst { k = 1, r = 8 }",
    ],
    "lora": [f"lora {{ rank = {rank} }}" for rank in (2, 4, 6, 8, 10, 12, 14, 16)],
    "mixed": [
        "lora { rank = 8 }",
        "lora { rank = 16 }",
        "ia3",
        "prefix_tuning { tokens = 4 }",
        "houlsby { size = 4 }",
        "lst { r = 4 }",
        "k_lst { k = 3, r = 4 }",
        "head_only",
    ],
}

WORDS = "a the film story cast plot fine dull warm slow bright long short and of with but never always best worst".split()


def trained(own, here):
    """A recipe with eight stages, run; the folder of each stage."""
    stages = "".join(
        f"stage s{i} = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-2, steps = 4, batch = 4 }}\n"
        for i, method in enumerate(METHODS[own.methods])
    )
    data = os.path.join(own.repository, "recipes", "reviews")
    with open(os.path.join(here, "load.peft"), "w") as out:
        out.write(
            f'model m = local "{own.model}"\n'
            f'data d = local "{data}" {{ text = sentence, label = label, labels = [negative, positive], take = 16 }}\n{stages}'
        )
    subprocess.run([own.program, "run", "--quiet", "load.peft"], cwd=here, check=True, capture_output=True)
    return [os.path.join(here, ".peftc", "runs", "load", f"s{i}") for i in range(len(METHODS[own.methods]))]


def predicted(own, here, folder, texts):
    """What `predict` says of the texts."""
    path = os.path.join(here, "texts.jsonl")
    with open(path, "w") as out:
        out.writelines(json.dumps({"sentence": text}) + "\n" for text in texts)
    command = [own.program, "predict", folder, "--quiet", "--all", "--input", path]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in made.stdout.splitlines()]


class Server:
    """A running server, with the port it took."""

    def __init__(self, own, folders, more):
        command = [own.program, "serve", *folders, "--listen", "127.0.0.1:0", "--queue", "256", *more]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                return
        raise SystemExit(f"{command} did not start")

    def ask(self, connection, body):
        connection.request("POST", "/v1/predict", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise SystemExit(f"{response.status}: {text}")
        return json.loads(text)

    def number(self, name):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))

    def resident(self):
        """MiB that the process has in memory."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            raise SystemExit("a server did not end well")


def load(own, servers, wanted, texts):
    """Times of all requests in seconds, and the time that all took together."""
    times, wrong = [], []
    start = threading.Barrier(own.clients + 1)

    def client(seed):
        draw = random.Random(seed)
        connections = {}
        start.wait()
        for _ in range(own.requests):
            model, text = draw.randrange(len(wanted)), draw.randrange(len(texts))
            server = servers[model]
            if server.port not in connections:
                connections[server.port] = http.client.HTTPConnection("127.0.0.1", server.port)
            body = {"model": f"s{model}", "rows": [{"sentence": texts[text]}], "all": True}
            begun = time.perf_counter()
            answer = server.ask(connections[server.port], body)
            times.append(time.perf_counter() - begun)
            if answer["rows"] != [wanted[model][text]]:
                wrong.append((model, text, answer))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(own.clients)]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    lost = own.clients * own.requests - len(times)
    if lost or wrong:
        raise SystemExit(f"{lost} requests are lost, {len(wrong)} answers differ: {wrong[:1]}")
    return sorted(times), seconds


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=os.path.join(root, "target", "release", "peftc"))
    parser.add_argument("--model", default=os.path.join(root, "recipes", "reviews-mini"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--methods", choices=METHODS, default="side")
    own = parser.parse_args()
    own.repository = root
    own.program, own.model = os.path.abspath(own.program), os.path.abspath(own.model)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(6, 40))) for _ in range(64)]
    with tempfile.TemporaryDirectory() as here:
        folders = trained(own, here)
        wanted = [predicted(own, here, folder, texts) for folder in folders]
        ways = [
            ("one server", [folders], ["--batch", "64"]),
            ("one server an adapter", [[folder] for folder in folders], ["--batch", "64"]),
            ("one row at a time", [folders], ["--batch", "1"]),
        ]
        print(f"{own.clients} clients, {own.requests} requests each, {len(folders)} models ({own.methods}); {os.cpu_count()} processors")
        print(f"{'way':24}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'MiB':>8}{'passes':>8}")
        for name, groups, more in ways:
            started = [Server(own, group, more) for group in groups]
            servers = started if len(started) > 1 else started * len(folders)
            try:
                times, seconds = load(own, servers, wanted, texts)
                memory = sum(server.resident() for server in started)
                passes = sum(server.number("peftc_passes_total") for server in started)
            finally:
                for server in started:
                    server.end()
            share = lambda part: times[min(len(times) - 1, int(part * len(times)))] * 1e3
            print(
                f"{name:24}{len(times) / seconds:12.0f}{share(0.5):10.1f}{share(0.99):10.1f}{memory:8.0f}{passes:8.0f}"
            )
    print("all answers are those of predict")


if __name__ == "__main__":
    sys.exit(main())
