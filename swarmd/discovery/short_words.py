"""The words of short codes: two lists of 256, a byte each.

Chosen to be known to whoever reads English a little, to sound apart when they are called across a room, and to be typed:
4 to 10 letters, no two of all 512 closer than two letters, nothing anybody would mind. A word belongs to one list only, so
its place is known.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = tuple(
    """
    abacus acorn acrobat airport album alpine amber anchor ankle antelope apricot aquarium archive armchair arrow artist
    asphalt atlas attic autumn avenue avocado badger bagpipe bakery balcony ballad bamboo banjo barefoot barley basket
    beacon beanbag beaver bedrock beetle bicycle billboard birthday biscuit blanket blossom blueprint bobsled bonfire
    bookcase boulder bracelet breakfast broccoli bucket buffalo bungalow butterfly cabbage cactus calendar camera canary
    candle canvas caravan cardigan carousel carpet cashew castle cathedral cedar celery chalkboard champion cheetah
    cherry chestnut chimney chipmunk chocolate cinnamon circus clarinet classroom clover cobalt coconut comet compass
    concert copper coral cottage courtyard coyote cranberry crayon crossover crystal cucumber cupboard curtain cushion
    daffodil dairy dancer daylight denim desert diamond diesel dinosaur dolphin domino doorbell dragonfly drawer
    driftwood dumpling eagle earring eclipse elbow elephant embassy emerald engine envelope equator escalator eyebrow
    fabric falcon farmhouse feather festival fiddle firefly flagpole flamingo flannel flashlight fountain foxglove
    freckle freezer galaxy gallery garlic gemstone geyser ginger giraffe glacier goblet goldfish gorilla granite
    grapefruit guitar gymnast hallway hammock hamster harvest hazelnut headlamp hedgehog helmet hickory highway hobby
    honeycomb horizon hurdle iceberg igloo indigo insect island ivory jaguar jasmine jigsaw journey jukebox jumper
    jungle juniper kangaroo kayak kennel kettle keyboard kingdom kitchen kiwi koala lagoon lantern lavender lemonade
    leopard library lizard lobster locket lumber lunchbox magnet mailbox mammoth mango maple marble marigold meadow
    melody meteor microwave mirror mitten monsoon mosaic motor mushroom mustard napkin nectar needle nickel notebook
    nutmeg oasis oatmeal octopus olive omnibus opera orbit orchard ostrich outfit oxygen oyster paddle palace panda
    pancake panther papaya parade parsley peacock pebble pelican penguin
    """.split()  # noqa: SIM905  256 words in quotes would hide a mistake
)

SECOND: Final = tuple(
    """
    almond antenna apartment backpack ballpoint barrel basement beehive binder blizzard blueberry bookshelf boomerang
    bottle bouquet breeze bridge broomstick bubble buckle bulldozer butter cabinet cafeteria campfire canopy canyon
    caramel cartoon cascade cello chandelier chapter checkmate chopstick cloak clockwork cloudburst cobweb coffee
    compost confetti convoy corduroy corridor cosmos cowbell cricket crocodile cruiser cyclone dashboard dentist
    dictionary diploma dishwasher dogwood donkey doorway drizzle dynamo easel eggshell elevator equation exhibit
    explorer factory fairway fedora ferry fiction figurine firewood fleece flipper flute folklore football forklift
    fortress fragment frigate frosting furnace gadget garden gearbox geranium glitter goggles grandstand gravity
    greenhouse grocery gumdrop handbook handshake harmonica haystack headphone heirloom hillside hologram homework
    hoodie horseshoe hourglass hydrant icicle inkwell inventor jacket javelin jellyfish jersey jester kazoo keyhole
    kilowatt knapsack knuckle labyrinth lacquer ladder ladybug landmark lasagna latitude laundry leaflet legend
    lighthouse limerick linen locksmith locomotive lollipop lullaby machine magazine mahogany manuscript marathon
    mattress megaphone mermaid midnight milkshake minstrel moonlight motorbike muffin museum musician mystery narrator
    nightfall nursery ocean office onion orange orchestra ornament overcoat package paintbrush pamphlet panorama
    parachute passport pasture pathway patio pavilion pepper perfume petunia piano picnic pigeon pilgrim pillow pinecone
    pistachio pitcher planet platypus playground poncho popcorn porcupine postcard potato pottery pretzel prism
    propeller pudding pulley pumpkin puppet puzzle pyramid quarry quicksand quilt quiver rabbit raccoon radish railway
    rainbow raspberry recipe reindeer ribbon rooftop rosemary rubber saffron salad sandwich sapphire satchel saxophone
    scarecrow scooter seashell seesaw shepherd shoelace shovel skylight snowflake sofa sparrow spatula spinach spiral
    sponge squirrel stadium staircase stencil sundial sunflower tangerine tapestry teapot telescope tornado tortoise
    trumpet tugboat
    """.split()  # noqa: SIM905  256 words in quotes would hide a mistake
)
