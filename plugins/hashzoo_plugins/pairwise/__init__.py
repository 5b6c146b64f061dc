"""Pairwise methods: they learn from pairs or triplets of similar and dissimilar images."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.pairwise import adsh, cnnh, dch, dhn, dnnh, dpsh, dqn, dsdh, dsh, dtsh, hashnet, mihash, sprch


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {
        "adsh": adsh.ADSH,
        "cnnh": cnnh.CNNH,
        "dch": dch.METHOD,
        "dhn": dhn.METHOD,
        "dhn-b": dhn.DHNB,
        "dhn-e": dhn.METHOD_E,
        "dhn-q": dhn.METHOD_Q,
        "dnnh": dnnh.METHOD,
        "dpsh": dpsh.METHOD,
        "dqn": dqn.DQN,
        "dsdh": dsdh.DSDH,
        "dsh": dsh.METHOD,
        "dtsh": dtsh.METHOD,
        "hashnet": hashnet.METHOD,
        "mihash": mihash.METHOD,
        "sprch": sprch.METHOD,
    }


@hookimpl
def hashzoo_heads() -> dict[str, Any]:
    """The heads of this family."""
    return {"divide-and-encode": dnnh.DivideAndEncode}


@hookimpl
def hashzoo_losses() -> dict[str, Any]:
    """The losses of this family."""
    return {
        "dch": dch.DCH,
        "dhn": dhn.DHN,
        "dhn-e": dhn.DHNE,
        "dhn-q": dhn.without_quantization,
        "dnnh": dnnh.DNNH,
        "dpsh": dpsh.DPSH,
        "dsh": dsh.DSH,
        "dtsh": dtsh.DTSH,
        "hashnet": hashnet.HashNet,
        "mihash": mihash.MIHash,
        "sprch": sprch.SPRCH,
    }
