"""Shallow methods: they compute the features once and solve for a hash function, without gradient training."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins import requirements
from hashzoo_plugins.shallow.bq import BQ
from hashzoo_plugins.shallow.bre import BRE
from hashzoo_plugins.shallow.cca_itq import CCAITQ
from hashzoo_plugins.shallow.cosdish import COSDISH
from hashzoo_plugins.shallow.fsdh import FSDH
from hashzoo_plugins.shallow.imh import IMH
from hashzoo_plugins.shallow.itq import ITQ
from hashzoo_plugins.shallow.ksh import KSH
from hashzoo_plugins.shallow.lsh import LSH
from hashzoo_plugins.shallow.opq import OPQ
from hashzoo_plugins.shallow.pca_rr import PCARR
from hashzoo_plugins.shallow.pcah import PCAH
from hashzoo_plugins.shallow.pq import PQ
from hashzoo_plugins.shallow.rabitq import RaBitQ
from hashzoo_plugins.shallow.rabitq_b import RaBitQB
from hashzoo_plugins.shallow.s3plh import S3PLH
from hashzoo_plugins.shallow.sdh import SDH
from hashzoo_plugins.shallow.sh import SH
from hashzoo_plugins.shallow.sq import SQ
from hashzoo_plugins.shallow.ssh import SSH
from hashzoo_plugins.shallow.turboquant import TurboQuant


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {
        "bq": BQ,
        "bre": BRE,
        "cca-itq": CCAITQ,
        "cosdish": COSDISH,
        "fsdh": FSDH,
        "imh": IMH,
        "itq": ITQ,
        "ksh": KSH,
        "lsh": LSH,
        "opq": OPQ,
        "pca-rr": PCARR,
        "pcah": PCAH,
        "pq": PQ,
        "rabitq": RaBitQ,
        "rabitq-b": RaBitQB,
        "s3plh": S3PLH,
        "sdh": SDH,
        "sh": SH,
        "sq": SQ,
        "ssh": SSH,
        "turboquant": TurboQuant,
    }


@hookimpl
def hashzoo_requirements() -> dict[str, requirements.Requirement]:
    """What the closed forms need: directions that exist, and pairs or variances of two images or more."""
    return {
        "bq": requirements.features_for_bits("bq"),
        "itq": requirements.images_for_bits("itq"),
        "pca-rr": requirements.all_of(requirements.features_for_bits("pca-rr"), requirements.images_for_bits("pca-rr")),
        "pcah": requirements.images_for_bits("pcah"),
        "pq": requirements.bytes_for_parts("pq"),
        "opq": requirements.bytes_for_parts("opq"),
        "rabitq": requirements.directions_for_bits("rabitq"),
        "rabitq-b": requirements.directions_for_coordinates("rabitq-b"),
        "turboquant": requirements.directions_for_coordinates("turboquant"),
        "ssh": requirements.images_for_bits("ssh"),
        "imh": requirements.anchors_for_bits,
        "cca-itq": requirements.images("cca-itq", 2),
    }
