"""Writes nested.parquet: conversations in lists of structs, where a key that one message has is null in the others.

Made with pyarrow 26.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": None},
    {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": 0.5, "z": True}}]}],
     "tools": [{"name": "f"}]},
]

pq.write_table(pa.Table.from_pylist(ROWS), Path(__file__).with_name("nested.parquet"), compression="snappy")
