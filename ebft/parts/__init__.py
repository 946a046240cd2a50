"""Parts, the interchangeable pieces: what they are, and how they are registered and built.

part                    the options model that every part is, and what it is built from
kinds                   the base classes of the kinds of parts
interfaces              what each kind of part does, as the loop calls it
splits, measurements    what data sources read; what evaluators measure
stateful                parts that keep state between steps
hooks                   the hooks by which plug-ins register parts
registry, modules       the parts by kind and name; importing plug-ins
packages, version       optional packages, and the versions that are tested; that of ebft
"""
