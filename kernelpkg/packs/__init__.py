"""Directories of kernels: found, read, locked.

    find          where packs are, and which of them is meant
    read          the manifests of a pack to specs, held against their files
    signature     the signature of a function, held against the schema of its op
    sources       the Python files of a kernel: read as trees, or loaded
    routes        a route of a pack held against its kernel and the native op
    lock          kernelpkg.lock: written and read
    verify        what is there, held against a lock at load
    drift         what has changed since a pack was locked, and whose change it is
    builds        directories of compiled kernels: read, held to the pack and its lock
Inside only:
    tensor_use    what a function of a kernel does with tensors that no call takes
"""
