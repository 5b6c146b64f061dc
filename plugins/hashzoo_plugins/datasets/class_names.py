"""The meaning of the columns of published list files, as far as it is known: the classes are in alphabetical order.

The columns of COCO and NUS-WIDE-81 were identified by those that are set most often, the columns of VOC by the
frequency of each. The concepts of NUS-WIDE-21 and of the 38 columns of MIRFLICKR are not published; these have numbers.
"""

_COCO = """
airplane,apple,backpack,banana,baseball bat,baseball glove,bear,bed,bench,bicycle,bird,boat,book,bottle,bowl,
broccoli,bus,cake,car,carrot,cat,cell phone,chair,clock,couch,cow,cup,dining table,dog,donut,elephant,fire hydrant,
fork,frisbee,giraffe,hair drier,handbag,horse,hot dog,keyboard,kite,knife,laptop,microwave,motorcycle,mouse,orange,
oven,parking meter,person,pizza,potted plant,refrigerator,remote,sandwich,scissors,sheep,sink,skateboard,skis,
snowboard,spoon,sports ball,stop sign,suitcase,surfboard,teddy bear,tennis racket,tie,toaster,toilet,toothbrush,
traffic light,train,truck,tv,umbrella,vase,wine glass,zebra
"""
COCO = tuple(_COCO.replace("\n", "").split(","))

_NUS_WIDE_81 = """
airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral cow
dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house lake leaf
map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection road rocks
running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger tower town toy
train tree valley vehicle water waterfall wedding whales window zebra
"""
NUS_WIDE_81 = tuple(_NUS_WIDE_81.split())

_VOC = """
aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep
sofa train tvmonitor
"""
VOC = tuple(_VOC.split())
