"""Pointwise and unsupervised methods: they learn from single images, by their classes, features or two views."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.pointwise import (
    bihalf,
    cibhash,
    crovca,
    csq,
    dhd,
    dpn,
    greedyhash,
    hswd,
    hyp2,
    knn_sign,
    mdsh,
    nsh,
    orthohash,
    sdc,
    shc,
    uhscm,
    wch,
)


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {
        "bihalf": bihalf.METHOD,
        "cibhash": cibhash.CIBHash,
        "crovca": crovca.CroVCA,
        "crovca-s": crovca.CroVCASupervised,
        "csq": csq.METHOD,
        "dhd": dhd.DeepHashDistillation,
        "dpn": dpn.METHOD,
        "greedyhash": greedyhash.METHOD,
        "greedyhash-u": greedyhash.METHOD_U,
        "hyp2": hyp2.METHOD,
        "knn-sign": knn_sign.KNNSign,
        "mdsh": mdsh.MDSH,
        "nsh": nsh.NaturallySorted,
        "orthohash": orthohash.METHOD,
        "orthohash-arc": orthohash.METHOD_ARC,
        "sdc": sdc.METHOD,
        "shc": shc.SHC,
        "uhscm": uhscm.UHSCM,
        "wch": wch.WeightedContrast,
    }


@hookimpl
def hashzoo_losses() -> dict[str, Any]:
    """The losses of this family."""
    return {
        "bihalf": bihalf.BiHalf,
        "crovca": crovca.unsupervised,
        "crovca-s": crovca.supervised,
        "csq": csq.CSQ,
        "dhd": dhd.DHD,
        "dpn": dpn.DPN,
        "greedyhash": greedyhash.GreedyHash,
        "greedyhash-u": greedyhash.Unsupervised,
        "hswd": hswd.HSWD,
        "hyp2": hyp2.HyP2,
        "knn-sign": knn_sign.NeighbourRecall,
        "mdsh": mdsh.MDSHLoss,
        "nsh": nsh.NSH,
        "orthohash": orthohash.OrthoHash,
        "orthohash-arc": orthohash.arc,
        "sdc": sdc.SDC,
        "uhscm": uhscm.UHSCMLoss,
        "wch": wch.WCH,
    }


@hookimpl
def hashzoo_heads() -> dict[str, Any]:
    """The heads of this family."""
    return {"hash-coder": crovca.HashCoder, "nsh": nsh.TwoHeads, "wch": wch.PatchHead}
