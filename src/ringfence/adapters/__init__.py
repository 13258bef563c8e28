"""LoRA adapters: read, checked against the model they are for, converted, applied.

`folder` and `safetensors_file` read what PEFT writes, `host` says what an adapter is for,
`converting` writes llama.cpp's form, `applying` puts one into a model of this process (torch;
imported where it is used), `choosing` finds the one to use. Knows nothing of engines.
"""

from ringfence.adapters.choosing import MOST as MOST
from ringfence.adapters.choosing import Chosen as Chosen
from ringfence.adapters.choosing import chosen as chosen
