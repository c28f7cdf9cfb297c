"""vLLM: its native ops answered by ops of a pack, its config files, its Helion folder.

    plugin              what vLLM's processes and Python call: register, install, revoke, report
    exchange            config files from vLLM's folder into the store of a pack, and back
    vendor              a pack as files of vLLM's own Helion folder
    native_ops          native ops as PyTorch has them
Inside only:
    routes              the table of routes of a process
    override            one native op that an op of a pack answers
    route_conditions    the conditions of a route, asked once for each signature
    route_counts        what became of the calls of one: how many which side answered, and why
    config_format       the text of vLLM's config files
    tree                a tree of vLLM's sources, read without importing it
"""
