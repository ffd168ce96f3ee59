"""Company: which things are at home where, and so with whom. The one table of IconWorld's everyday knowledge.

Boats are on water, cows on grass, cups on tables, chairs next to lamps, far more often than chance; so the rest of an
image tells what a small, blurred or hidden thing is, as in photographs. P places, G nouns, S kinds of stuff.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.textures import STUFF_NAMES

# place -> the stuff that is there, the things that are at home there
PLACES = {
    "sea": ("water sky", """
        boat, ship, shark, whale, dolphin, octopus, jellyfish, fish, lifebuoy, anchor, seal, turtle, shrimp,
        swimmer, surfer, lighthouse, canoe"""),
    "lake": ("water grass", """
        duck, swan, frog, fish, boat, canoe, fishing rod, flamingo, turtle, crocodile, waterfall, swimmer,
        hippo, bridge"""),
    "beach": ("sand water", """
        palm tree, crab, lobster, turtle, sandal, bucket, shovel, umbrella, sunglasses, surfer, ice cream, hat,
        seashell, volleyball, cocktail, frisbee, anchor, treasure chest, lifebuoy"""),
    "sky": ("sky snow", """
        airplane, helicopter, parachute, kite, balloon, bird, eagle, cloud, sun, moon, star, rainbow, dove, bat,
        mountain, cable car, feather"""),
    "space": ("rock sky", """
        rocket, ufo, alien, astronaut, satellite, planet, robot, star, globe, telescope, satellite dish, moon"""),
    "farm": ("grass field", """
        cow, horse, sheep, goat, pig, chicken, chick, turkey, tractor, wheat, corn, pumpkin, dog, llama, fence,
        barrel, egg, ladder, cat, basket, house"""),
    "garden": ("grass soil", """
        flower, rose, tulip, sunflower, bouquet, sprout, plant, bee, butterfly, ladybug, ant, snail, spider,
        rabbit, hedgehog, shovel, bench, tree, mouse, leaf, fence, peacock, broom"""),
    "forest": ("soil rock", """
        bear, fox, wolf, deer, squirrel, owl, raccoon, pine tree, tree, mushroom, leaf, maple leaf, tent, log,
        fire, axe, hut, feather, hedgehog"""),
    "jungle": ("soil grass", """
        monkey, gorilla, tiger, parrot, panda, koala, peacock, crocodile, snake, frog, butterfly, palm tree"""),
    "savanna": ("field soil", """
        lion, elephant, giraffe, zebra, leopard, rhino, hippo, kangaroo, monkey, eagle, tree, dinosaur, hut"""),
    "desert": ("sand rock", """
        camel, cactus, scorpion, snake, skull, bone, dinosaur, volcano, pagoda, sun, hat, dragon, unicorn"""),
    "winter": ("snow rock", """
        penguin, polar bear, seal, snowman, skier, snowboarder, skis, skate, snowflake, mountain, pine tree,
        scarf, gloves, cable car, christmas tree, santa claus, deer, hockey stick, boot"""),
    "street": ("road brick", """
        car, bus, taxi, truck, bicycle, motorcycle, moped, scooter, traffic light, stop sign, road sign, fire
        hydrant, street lamp, police car, ambulance, fire truck, van, police officer, person, race car, mailbox,
        trash can, barrier, gas pump, pickup truck, skateboard, train, shopping bag"""),
    "town": ("brick gravel", """
        house, building, church, castle, bank, hospital, school, store, mosque, factory, tower, fountain,
        statue, stadium, pagoda, bench, stairs, column, bridge, flag, street lamp, escalator, lantern, door"""),
    "yard": ("gravel soil", """
        crane, barrier, barrel, truck, helmet, ladder, train, tractor, shovel, box, pickup truck, log, fire,
        bomb, wheelchair, shopping cart"""),
    "workshop": ("wood gravel", """
        hammer, wrench, screwdriver, saw, axe, toolbox, magnet, gear, ladder, flashlight, battery, plug, broom,
        bucket, key, lock, light bulb, fire extinguisher, paintbrush, barrel"""),
    "kitchen": ("tile wood", """
        refrigerator, microwave, oven, toaster, pot, knife, spoon, fork, bowl, plate, teapot, fried egg, egg,
        bottle, jar, tin can, washing machine, broom, chopsticks, clock, trash can, onion, garlic, steak, potato,
        window"""),
    "dining": ("wood carpet", """
        table, chair, wine glass, cake, chandelier, plate, candle, cup, spaghetti, salad, steak, chicken leg,
        bread, stool, drinking glass, fork, spoon, knife, bouquet, sushi, rice, noodles, milk"""),
    "market": ("wood field", """
        apple, pear, banana, tangerine, peach, strawberry, blueberry, kiwi, lemon, grape, cherry, watermelon,
        pineapple, avocado, tomato, eggplant, potato, onion, garlic, broccoli, cucumber, lettuce, bell pepper,
        carrot, corn, chili pepper, pumpkin, mushroom, basket, scale, cheese, bread, baguette, box, fish, coin,
        money bag"""),
    "snack bar": ("tile brick", """
        hamburger, french fries, hot dog, pizza, taco, sandwich, soda, donut, cookie, cupcake, croissant,
        pretzel, pancake, pie, ice cream, popcorn, candy, beer mug, cup, stool, credit card, milk, cocktail,
        chicken leg"""),
    "living room": ("carpet wall", """
        sofa, lamp, television, bookshelf, armchair, painting, cat, dog, piano, curtain, fireplace, clock,
        plant, remote, vase, rabbit, fan, telephone, radio, game controller, yarn, chair, globe"""),
    "bedroom": ("wall wood", """
        bed, wardrobe, chest of drawers, mirror, teddy bear, curtain, window, door, baby, baby bottle, lamp,
        clock, ghost, sock, book, candle, phone, hair dryer"""),
    "bathroom": ("tile marble", """
        bathtub, toilet, shower, toothbrush, soap, toilet paper, hair dryer, mirror, lipstick, duck, washing
        machine, bucket, sandal, foot"""),
    "office": ("wall marble", """
        computer, laptop, keyboard, computer mouse, printer, telephone, desk, pencil, pen, notebook, folder,
        file cabinet, calendar, paperclip, pushpin, book, envelope, briefcase, scissors, ruler, newspaper,
        floppy disk, phone, cd, seat, credit card"""),
    "school": ("wall brick", """
        crayon, ruler, backpack, graduation cap, globe, book, map, pencil, palette, paintbrush, bell, scissors,
        compass, notebook, chess pawn, magnifying glass"""),
    "clinic": ("marble tile", """
        microscope, flask, thermometer, stethoscope, syringe, pill, bandage, brain, tooth, skull, bone, eye,
        ear, nose, mouth, foot, hand, wheelchair, magnifying glass, mask"""),
    "boutique": ("marble carpet", """
        shirt, dress, jeans, shorts, coat, tie, hat, cap, shoe, high heel, boot, sock, handbag, purse, ring,
        watch, glasses, sunglasses, diamond, crown, gloves, scarf, suitcase, shopping bag, ribbon, umbrella,
        lipstick"""),
    "stage": ("carpet wood", """
        guitar, violin, trumpet, saxophone, drum, microphone, headphones, piano, mask, camera, video camera, cd,
        megaphone, bell, ticket"""),
    "pitch": ("grass gravel", """
        soccer ball, basketball, baseball, tennis racket, volleyball, football, bowling ball, trophy, medal,
        baseball bat, boxing glove, kite, frisbee, ping pong paddle, hockey stick, billiard ball, skateboard,
        person, megaphone"""),
    "fair": ("gravel field", """
        ferris wheel, roller coaster, circus tent, slide, balloon, popcorn, candy, ticket, horse, elephant, ice
        cream, drum, mask, lantern, kite"""),
    "party": ("carpet brick", """
        gift, cake, balloon, candle, cupcake, ribbon, dice, cocktail, wine glass, bottle, teddy bear, robot,
        game controller, christmas tree, santa claus, radio"""),
    "treasury": ("rock marble", """
        treasure chest, crown, sword, shield, coin, money bag, key, lock, diamond, ring, scale, hourglass,
        castle, dragon, compass, map, bomb, flag, unicorn, ghost, bat, spider"""),
    "station": ("road marble", """
        train, suitcase, escalator, seat, ticket, clock, backpack, bus, taxi, newspaper, shopping cart, person,
        stairs, bench, window, door"""),
}  # fmt: skip
BOND = 25.0  # how much likelier than another noun one that shares the place is
ELSEWHERE = 0.004  # weight of a stuff that is not of the place, in a scene at that place


@dataclass(frozen=True)
class Company:
    """nouns: (P, G) bool, at home there. stuff: (P, S) bool, found there."""

    nouns: torch.Tensor
    stuff: torch.Tensor


@lru_cache(maxsize=1)
def load_company() -> Company:
    """The table as tensors. Raises ValueError for a noun at home nowhere, and for a name that is no noun or stuff."""
    names = [noun.noun for noun in load_nouns()]
    nouns = torch.zeros(len(PLACES), len(names), dtype=torch.bool)
    stuff = torch.zeros(len(PLACES), len(STUFF_NAMES), dtype=torch.bool)
    for place, (grounds, things) in enumerate(PLACES.values()):
        at_home = " ".join(things.split()).split(", ")
        unknown = [*(set(at_home) - set(names)), *(set(grounds.split()) - set(STUFF_NAMES))]
        if unknown:
            raise ValueError(f"got {', '.join(unknown)} in PLACES, expected nouns and stuff of IconWorld")
        nouns[place] = torch.tensor([name in at_home for name in names])
        stuff[place] = torch.tensor([name in grounds.split() for name in STUFF_NAMES])
    homeless = [name for name, somewhere in zip(names, nouns.any(0).tolist(), strict=True) if not somewhere]
    if homeless:
        raise ValueError(f"got no place for {', '.join(homeless)}, expected each noun in PLACES")
    return Company(nouns, stuff)
