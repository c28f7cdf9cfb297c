"""What authors write: TOML to frozen specs, every problem with its line.

    spec             what a manifest says, as frozen values
    keys             every key of both manifests, in tables that all others are made from
    decode           the strict decoder: kinds of values, no coercion
    document         one TOML file: its bytes, its edition, the line of every key
    kernel           the document of one kernel to its spec
    vouched          the spec of a kernel that a lock vouches for
    opschema         the schema of an op, read without PyTorch
    validate         rules that no single key can break: what must agree with what
    cases            grids to cases, and what a case weighs
    wanted           the cases that a command is asked for, by values of axes
    guards           a call held against [args] and [guard]
    helion_config    the fields of a Helion config, and which of them are positional
    inits            what tensors of whole numbers hold, and where they cannot
    backward         the backward of an op held against both schemas
Inside only: none.
"""
