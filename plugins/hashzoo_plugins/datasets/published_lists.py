"""The list files of published hashing benchmarks, with one image per line: its path, then its labels as 0 and 1.

They are from HashNet (Cao et al., ICCV 2017) and from swuxyj/DeepHash-pytorch. Each is pinned to a commit; sizes and
checksums are those of the files as stored in the repositories, with LF line endings.
"""

from __future__ import annotations

from hashzoo_plugins.datasets.download import Remote


def _lists(folder: str, table: str) -> tuple[Remote, ...]:
    """Files in a folder on GitHub; ``table`` has one line per file: path, size, sha256."""
    lines = [line.split() for line in table.strip().splitlines()]
    base = f"https://raw.githubusercontent.com/{folder}"
    return tuple(Remote((f"{base}/{path}",), path, int(size), sha256=digest) for path, size, digest in lines)


LISTS = {
    "coco-lists": _lists(
        "thuml/HashNet/48652bff55009f81c5291bdf8b096b43d258e7e2/caffe/data/coco",
        """
        train.txt 2127064 b7bc04035e2217e0bc8533f20a1007203b73ce283d9ef09669c5c6ea707efb3a
        test/test0.txt 132994 7c91e4448bbbea4f88122615fba948b7509c972af494fd435a687ebc23d35f7d
        test/test1.txt 132994 f409fe1efb2811e45a8304bf6661076a2b105ff9229d776153b83c24638813c1
        test/test2.txt 132974 281e18466701f37e8d7375193f292002267f1b8a245edb37e88375050e061998
        test/test3.txt 132838 b228cda057f33c155982847b91f53b13c39b84f8f2e4f848accd36bcb23aaf50
        test/test4.txt 132918 3b1551b65b6c317d1e6a05c3433fcb689746faae25255933f9555dcf8852daac
        test/test5.txt 132990 a166ae93ec56f88a0ae84bf30b080a69a6f5ad849db6c1700059b36ee14d56ee
        test/test6.txt 132910 b8d83e2fb2eb77622124f7d5d70ce4c98e0c51c91cb9b0b5140ceb558e5d9cdc
        test/test7.txt 132954 9745ab190f66ec116330005c34f5c25e3a28ed3a22d83a93d9098ba2d13ceab7
        test/database0.txt 2983288 394418a09cd7e7d26bbc0a93b970f2e5c5b8b9ececacfc2cdf8dd9cf02a51f54
        test/database1.txt 2983640 94835241011b196129deec03db4189eb2b44e5b247d2b464b9c724d7a62f4783
        test/database2.txt 2983456 0c1f448bbcfcf04168ae21b1f3ca38f1829ae1bb2f7fb1fc2fe2e07f18c86276
        test/database3.txt 2983224 d543cf89f71a4e9fd7603979f763a160d5e2761104ec09de00627172650a2e43
        test/database4.txt 2983390 77a645003e9927dbe091077ff6254790831ab73f22f61ba8095a7fcdfd8526aa
        test/database5.txt 2983066 01e868a211829c7cf4527a4122ed60f60c153157d103c23218133d2b1d899280
        test/database6.txt 2983678 f5cb4186aa736386efb30937f8ea0c2846841d152c94788470ac83faa3f33187
        test/database7.txt 2983298 6e691653a30fca73fed527faeaa6e555cf5f741eefc95a1124d2c32f1fb408ff
        """,
    ),
    "imagenet100-lists": _lists(
        "thuml/HashNet/48652bff55009f81c5291bdf8b096b43d258e7e2/caffe/data/imagenet",
        """
        train.txt 3149785 d5dc07dcd2f69df60b6338d349c11c3b2cf6ab7ab982f015ea79b282383bb303
        test/test0.txt 159375 2590239da09f8770d82aae7b9e578d8391e1e1389b2732fcf8c036f4f6d34ae9
        test/test1.txt 159375 f5261ff045b7009b6118199d9c23554978bed1748b014687198584c0ed734455
        test/test2.txt 159375 de2f5514414c59fa86f9bf07a4fb00bd964e6f11f06baf2867eadfa81f34b0b9
        test/test3.txt 159375 354e037d928738579c0dacd1bbb7f98324ef7dd9b62146460f5430114712e3f9
        test/test4.txt 159375 eea8eaf42b4436d0fd736f84e9e53f3a89de1719a6d4359709fc6a56824360f1
        test/test5.txt 159375 7c2686f54c8716fe748fe816c060ea282002f1fa44695d480040472410441a23
        test/test6.txt 159375 cd452e6c6154307fde1bd6b0263bf767e7b02bd91d08656750c259eba06f1966
        test/test7.txt 159375 eaa84e8387fe7f38cc0f136870fd72743a7af6a4ef6766166f2bd229fa9fc192
        test/database0.txt 3891704 4b4d8c96d5770795a18c1d651dde961094c0d7485f21d7e28b03123526bff1ba
        test/database1.txt 3891738 13a6701ccb0ddec038a8d8e5a5321d0cf28667b3473193625e077c10df17c988
        test/database2.txt 3891756 e55aaef56a62fa79dfc92cc9d5c738db0dd5e051ba9e93437b939058a8536a05
        test/database3.txt 3891848 b42b99cbaa5107243e6f91a9f99dc0bf262229d64330f8a1f72008ce71812dc8
        test/database4.txt 3891920 8aaa316eaa3d1c57d75a71b55868344131ecdffc75abc7b22ceb228e1e592414
        test/database5.txt 3891839 7a70fb3df9f76d0759b7660e503474833fa2986636dd795ac852e82e463c094f
        test/database6.txt 3891843 399d29e4f9b8790c4496a09fdbc2b9c0e69433f818e31f8332fd672edd0caeb7
        test/database7.txt 3891631 62442bcab33fa422ce5f6551295dbce14ce374ae2b068d2a2b8ce11a5f43f8fb
        """,
    ),
    "nus-wide-81-lists": _lists(
        "thuml/HashNet/92631268d47eaed1ca0f7c1726de8e286b719249/pytorch/data/nuswide_81",
        """
        train.txt 2209340 5cbe7a04f89e68ac8e98ac4e0477f674555bf1bf1a9a050f4b097613b4b20c47
        test.txt 1104604 48f3ac90d8f17c8b376a5e02e5a7eca71babc291e73f97a1761e6c2f465bbee5
        """,
    ),
    "nus-wide-21-lists": _lists(
        "swuxyj/DeepHash-pytorch/54d106799d97914c426c743c8b07181aeebb9936/data/nuswide_21",
        """
        train.txt 718330 c31007d63075cc173cb368f91475e4072a76b312b7dca0d14e88b1cc23586851
        test.txt 143642 bbdbc13c08e340068064eb4f9849f33800139816fbe0e0792d5a49953581b41f
        """,
    ),
    "mirflickr-lists": _lists(
        "swuxyj/DeepHash-pytorch/8fd4fbbd43ab6746c3dda7f6dd274f7578710fbb/data/mirflickr",
        """
        train.txt 350227 99a9896a53cde852d6c82426ed46f9e3c255bf5e6567e71be3083ac20d98392b
        test.txt 87544 603be888c4e3f0c35a7b1596aa6d2bdd4f481d59406610da09efc4c8c837796a
        database.txt 1751123 79c161fbec551b4e59c5c4cf5d9b2b3481fa3e6b93f9bf77a64a6ebf8c983912
        """,
    ),
    "voc2012-lists": _lists(
        "swuxyj/DeepHash-pytorch/15429ebf95c3b5bc423352bff19f3e42de96d339/data/voc2012",
        """
        train.txt 340000 d46ad994b58ce89cf6904cf667ff9c2b47e7e08c083b40fd541c88e27119846b
        test.txt 85000 6c4f2b8297ccea643892c280ee91a48e7cbdbc11ce48d059637ae972fc04589c
        database.txt 555900 0d33f2ac1adc7ab5e7c1379cbe5dd3c8a1a6d2dab648f23e5ff4ca17a014f1b5
        """,
    ),
}
