"""Numbers of PyTorch's generator on the processor, one draw after the other: torch_random.json."""
import json
import math
from pathlib import Path

import torch


def generator(seed):
    made = torch.Generator("cpu")
    made.manual_seed(seed)
    return made


out = {}
for seed in (0,42,2**40+7):
    G = generator(seed)
    d = {}
    d['uniform']=torch.empty(5).uniform_(-0.3,0.4,generator=G).tolist()
    d['perm']=torch.randperm(11,generator=G).tolist()
    d['below']=torch.randint(0,37,(6,),generator=G).tolist()
    d['wide']=torch.randint(0,2**40,(3,),generator=G).tolist()
    d['edge']=torch.randint(0,2**28,(3,),generator=G).tolist()
    d['below_edge']=torch.randint(0,2**28-1,(3,),generator=G).tolist()
    d['normal3']=torch.empty(3).normal_(0.3,0.7,generator=G).tolist()
    d['normal21']=torch.empty(21).normal_(0,1,generator=G).tolist()
    d['normal2']=torch.empty(2).normal_(0,1,generator=G).tolist()
    d['rand']=torch.rand(700,generator=G).tolist()[-3:]
    w = torch.empty(3, 7)
    torch.nn.init.kaiming_uniform_(w,a=math.sqrt(5),generator=G)
    d['kaiming']=w.flatten().tolist()[:4]
    d['big']=torch.randperm(70001,generator=G).tolist()[-3:]
    out[seed]=d
Path(__file__).with_name("torch_random.json").write_text(json.dumps(out) + "\n")
