"""Which calls of a pack get which config: as maps, text and drawings.

    pack_coverage     the maps of a pack, and its JSON document
    coverage_text     the maps as tables and lines
    coverage_chart    the maps as one drawing
Inside only:
    coverage          the map of one op on one platform
    svg               elements of drawings, and their colours
"""
