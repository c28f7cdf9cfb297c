"""Which calls of a pack get which config: as maps, text and drawings.

    pack_coverage     the maps of a pack, and its JSON document
    coverage_text     the maps as tables and lines
    coverage_chart    the maps as one drawing
    page              one page of HTML that shows a pack
    coverage          the map of one op on one platform
Inside only:
    svg               elements of drawings, and their colours
    charts            the charts of the page, as specifications of Vega-Lite
    measured          what runs of `bench` say: the last figure of each case, and over time
"""
