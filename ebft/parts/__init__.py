"""Parts: what each interchangeable piece is, how it is made, and how its name finds it.

part                    the options model that every part is, and what it is built from
interfaces              what each kind of part does, as the loop sees it
splits, measurements    what data sources read; what evaluators measure
stateful                parts that remember something between steps
hooks                   the hooks by which plug-ins register parts
registry, modules       the parts by kind and name; importing plug-ins
"""
