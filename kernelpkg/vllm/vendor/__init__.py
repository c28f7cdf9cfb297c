"""vllm.vendor"""
