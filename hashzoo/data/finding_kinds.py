"""The kinds of findings of ``hashzoo data check``: why each matters, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of finding: why it matters, how to fix it, and the key in ``Splits.notes`` that declares it."""

    why: str
    cure: str
    note: str = ""


#: Every kind by its name. Names never change: scripts pass them to --allow.
KINDS = {
    "query-in-database": Kind(
        "a query retrieves itself first, at distance 0, with any method", "remove the queries from the database"
    ),
    "query-in-train": Kind(
        "the method is trained on images that it is evaluated with", "remove the queries from the training set"
    ),
    "query-copy-in-database": Kind(
        "a query retrieves an exact copy of itself under another id, with any method",
        "remove one of the two images",
        "copies",
    ),
    "query-copy-in-train": Kind(
        "the method is trained on exact copies of queries, under other ids", "remove one of the two images", "copies"
    ),
    "query-near-database": Kind(
        "a query retrieves an image that looks the same, such as a scaled or recompressed copy",
        "inspect the examples; remove one image of each pair, or declare them",
        "copies",
    ),
    "query-near-train": Kind(
        "the method is trained on images that look the same as queries",
        "inspect the examples; remove one image of each pair, or declare them",
        "copies",
    ),
    "duplicates": Kind("an image counts more than once in a part", "list every image once"),
    "copies-in-a-part": Kind(
        "an image counts more than once in a part, under different ids: in training, or among the results of a query",
        "remove all but one of the images, or give them the same labels if these differ",
    ),
    "near-in-a-part": Kind(
        "an image of a part looks like another one of it, such as a scaled or recompressed copy",
        "inspect the examples, or compare the pixels by hashzoo dedup; remove all but one, or declare them",
        "copies",
    ),
    "unlabelled-queries": Kind(
        "a query without labels has no relevant item; hashzoo excludes it from means, other code counts it as 0",
        "remove it from the queries",
    ),
    "queries-without-relevant": Kind(
        "no database item shares a label with the query; hashzoo excludes it from means, other code counts it as 0",
        "remove it from the queries, or add its classes to the database",
    ),
    "class-ordered-database": Kind(
        "code that breaks ties by the order of the database gives wrong scores; scores of hashzoo do not depend on the "
        "order",
        "shuffle the database before using it with other code",
    ),
    "train-in-database": Kind(
        "labels of database images are used in training, so scores are optimistic and not comparable with those of "
        "disjoint protocols",
        "remove the training images from the database, declare it: notes = {'train': 'inside the database'}, or allow "
        "it: --allow train-in-database",
        "train",
    ),
    "class-missing-in-train": Kind(
        "a class of the queries or of the database has no training image",
        "add images of it, or omit its column from the training labels: then it counts as an unseen class",
    ),
    "labels-not-binary": Kind(
        "labels other than 0 and 1 weight images in losses and change which images are similar",
        "make labels multi-hot",
    ),
    "similar-class-names": Kind(
        "names of classes differ only by case, blanks or Unicode normalization, or as 1 and 1.0: one class may be "
        "counted as two",
        "give images of one class one name",
    ),
    "label-with-separator": Kind(
        "a label holds a separator that is not ; or |, so that several labels may be counted as one class",
        "separate the labels of an image with ; or |",
    ),
    "class-numbers": Kind(
        "class numbers start above 0 or have gaps: classes are the numbers that occur",
        "check that no class is missing, and number the classes from 0",
    ),
    "class-without-images": Kind("no image of a class can be used", "repair or convert its files, or remove the class"),
    "left-out-files": Kind(
        "image files are not part of the dataset", "convert or move them, or remove them from the folder"
    ),
    "passed-over": Kind(
        "folders of thumbnails and copies that cameras, NAS, archives and notebooks create are not read",
        "nothing needs to be done",
    ),
    "read-as-parts": Kind(
        "names of folders, arrays or values of a column were read as the parts of the dataset",
        "rename them if they are not",
    ),
    "not-read": Kind(
        "columns of the table, or lists in the folder, were not read", "remove them, or rename the one that is meant"
    ),
    "unlabelled-train": Kind(
        "training images have no label; methods that need one are skipped", "give labels to them, or leave them out"
    ),
    "value-range": Kind(
        "files of more than 8 bits hold values that fill a part of their type; black and white follow from the values",
        "check an example; scale the values to the range of the type if the image is too bright",
    ),
    "held-out-queries": Kind(
        "queries were drawn from the vectors and left out of the database", "nothing needs to be done"
    ),
    "unusable-vectors": Kind(
        "a vector with a number that is not finite, or of length 0, has no neighbors",
        "repair or remove it, or use hashzoo bench --on-bad-image skip",
    ),
    "lengths": Kind("vectors do not have length 1", "nothing needs to be done"),
    "constant-columns": Kind(
        "a column with the same value in all vectors tells nothing and takes bits of some codes", "remove the column"
    ),
    "duplicate-rows": Kind(
        "equal vectors are ties: which of them are the nearest neighbors is arbitrary", "keep one of them"
    ),
    "contaminated": Kind(
        "the backbone was trained with labels on a dataset that contains this one; its scores are marked contaminated",
        "use a backbone trained on other data",
    ),
    "damaged": Kind("an image does not decode", "repair or remove it, or use hashzoo bench --on-bad-image skip"),
    "missing": Kind("an image of the protocol does not exist", "download it, or remove it from the list"),
    "no-images": Kind(
        "none of the images exists: copies and damage were not checked", "give the folder that contains them"
    ),
}
KINDS = {name: Kind(kind.why, kind.cure, kind.note or name) for name, kind in KINDS.items()}
#: Findings that are reported and never fail a check.
STATEMENTS = (
    *("no-images", "copies-in-a-part", "passed-over", "read-as-parts", "not-read", "unlabelled-train"),
    "value-range",
    *("held-out-queries", "lengths"),
)
