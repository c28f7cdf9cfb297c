"""The plugin under the name that vLLM's entry point has; it is `kernelpkg.vllm.plugin`."""

import sys

from kernelpkg.vllm import plugin

sys.modules[__name__] = plugin
