"""The words of the invented world: names and towns of six cultures, trades, schools, and the sentences that use them.

All of it is invented; whoever resembles a real person does so by chance. `world` combines the parts into millions of
distinct names. The parts of every culture have the same numbers (32 first names, 32 roots and 16 endings of surnames,
12 roots and 8 endings of towns), so that one arithmetic serves all six.
"""

from typing import NamedTuple


class Person(NamedTuple):
    """One invented person; the fields from `birthplace` on stand in the order of TEMPLATES."""

    name: str
    surname: str
    culture: str
    birthplace: str
    birth_year: int
    school: str
    occupation: str
    residence: str
    hobby: str


class Culture(NamedTuple):
    """Word parts of one culture: a surname is root + ending, a town is town root + town ending."""

    name: str
    first: tuple[str, ...]
    roots: tuple[str, ...]
    endings: tuple[str, ...]
    town_roots: tuple[str, ...]
    town_endings: tuple[str, ...]


def _culture(name: str, first: str, roots: str, endings: str, town_roots: str, town_endings: str) -> Culture:
    lists = (first, roots, endings, town_roots, town_endings)
    return Culture(name, *(tuple(words.split()) for words in lists))


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split(","))


CULTURES = (
    _culture(
        "Norrish",
        "Arvid Birka Dagny Eskil Frode Gunva Hald Ingrun Jorun Ketil Liv Magnar Njord Oddny Ragna Sigvar"
        " Tyra Ulfar Vigdis Yngve Åsa Bjarki Dyre Eydis Folke Grete Hervor Ivar Kari Leif Runa Snorre",
        "Alm Bek Brand Dal Ek Falk Finn Gran Grim Hag Hjalm Holt Kvist Lind Lom Mork Nord Orm Ravn Rim"
        " Skog Sol Stav Sten Svan Torv Ulv Val Varg Vik Viss Yst",
        "arsen desen dottir ing inger kvam lund mark mund nes rud ström stad und vang øy",
        "Aske Bjørn Dyn Fjell Gjær Hest Kald Lyng Myr Ost Skar Vind",
        "borg by fjord havn heim sund vik voll",
    ),
    _culture(
        "Veltian",
        "Alvaro Brisa Celio Dario Elmira Fabro Gioia Idalia Jacopo Lavinia Mirco Nerea Orazio Pia Quinto Rosalba"
        " Salvo Tulia Ugo Valerio Zita Amedeo Bettina Corrado Delia Ennio Fiora Gaspar Ilario Livia Marzio Nives",
        "Alban Bell Borr Cald Capr Cor Dell Ferr Fior Gall Grass Lamp Lor Mand Mar Mont Mor Nard Oliv Pal"
        " Per Quad Ross Sald Serr Spin Tar Tess Torr Vald Ver Zan",
        "acci aldi anti ardo azzo edo elli enzo eri esca etti iani igno ino osso uzzi",
        "Acqua Bosco Chiara Fonte Gran Lago Monte Nova Ponte Rocca Sel Val",
        "bella brava chera dolfo lunga marina séra verde",
    ),
    _culture(
        "Kharese",
        "Anush Baran Davit Esma Farid Gohar Hasmik Irem Jalil Karim Leyla Murad Nazli Orhan Parisa Rustam"
        " Shirin Tigran Umay Vahan Yasmin Zahra Arman Bahar Cyrus Delara Emin Feraz Gulsen Hadi Idris Jasmin",
        "Abd Arj Bagh Bal Char Dar Elb Far Gaz Ghar Hak Ism Jav Kash Kham Lal Mah Mirz Nad Osk"
        " Par Qas Rahm Sab Shah Tab Tahm Uzm Vaz Yaq Zar Zhen",
        "abian adze aghi akian andar anlu aryan avi azim egir emli eshk idze ouri oyan uni",
        "Alta Bakh Chor Darv Esk Gulm Hamz Kar Merv Sabz Tash Zor",
        "abad akend apur astan avar egan iran uz",
    ),
    _culture(
        "Dunnish",
        "Agnes Barnaby Clement Dorcas Edmund Flora Gilbert Hester Isaac Jemima Kenelm Lettice Mabel Ned Olive Piers"
        " Quentin Rosamund Silas Tabitha Ursula Wilfred Ambrose Bess Cuthbert Della Ezra Faith Giles Hope Jasper Kit",
        "Ash Bram Brook Cle Crow Dun Elder Fen Garth Hales Hard Hay Hazel Kirk Lang Marl Mill Nether"
        " Oak Pen Red Rush Sedge Stan Thorn Under Wal Wen West Whit Wool Yar",
        "acre by combe dale den field ford gate ham ley more ridge ton ward well worth",
        "Apple Bar Crag Dew Ever Frost Glen Heath Maple North Stone Wind",
        "bridge bury cliff haven minster mouth port wick",
    ),
    _culture(
        "Oromai",
        "Aiko Benji Chiyo Daiki Emiko Fumi Goro Hana Isamu Junko Kenta Mio Naoki Orie Renzo Sayuri"
        " Taro Umeko Yori Akira Botan Chika Denji Etsu Genta Hiroka Itsuki Kaede Masao Nozomi Rin Shiori",
        "Aka Ama Asa Eno Fuka Fuji Hama Hara Ishi Iwa Kane Kawa Kita Kuro Matsu Midori Mori Naga"
        " Nishi Oka Saku Shima Sugi Taka Toku Ueda Wata Yama Yoko Yoshi Yuki Zen",
        "bashi chi da gawa hashi kura matsu moto mura naka nome oka saki shita zaki zawa",
        "Chiba Ebi Fuku Hoshi Kuma Mizu Nami Ogi Saga Tani Umi Yona",
        "dera hara jima koshi machi mine sato tsu",
    ),
    _culture(
        "Zelmarine",
        "Abena Bakari Chidi Dalila Ebele Femi Gamba Hawa Imani Jabari Kofi Lindiwe Mosi Nia Obi Pendo"
        " Rashida Sefu Thandi Uzoma Wanja Yaro Zuri Ayo Binta Chausi Dume Esi Folami Goma Hasina Jengo",
        "Ade Aki Ban Chik Dia Eku Gba Ife Jel Kam Kab Lum Mak Mbo Mwa Nda Nko Nya Oba Oko"
        " Olu Ony Rwa Sek Tam Tem Tsho Uch Wam Yeb Zam Zul",
        "anda angwe ango ayo ebo ekwe ela emba enge ibwa idi ike olo onde ubi uma",
        "Bamb Dod Gas Kig Lub Mond Nair Pwan Rund Sal Témb Zanj",
        "akuru amasi awira edori ikonge ombasa osengi ulanga",
    ),
)

INITIALS = tuple("ABCDEFGHIJKLMNOPRSTUVWYZ")

OCCUPATIONS = _listed(
    "a baker,a barber,a botanist,a brewer,a carpenter,a cellist,a chemist,a clerk,a cobbler,a composer,a cook,"
    "a dancer,a dentist,a diver,a farmer,a fisher,a gardener,a geologist,a glazier,a judge,a lawyer,a locksmith,"
    "a mason,a midwife,a miller,a nurse,a painter,a pilot,a plumber,a poet,a potter,a printer,a sailor,a sculptor,"
    "a surgeon,a tailor,a tanner,a weaver,an actor,an archivist,an engineer,an optician"
)
SCHOOLS = _listed(
    "Alder College,Beacon College,Cedar College,Falcon College,Harbour College,Juniper College,Lantern College,"
    "Meadow College,Orchard College,Quarry College,Raven College,Summit College,Alder School,Beacon School,"
    "Cedar School,Falcon School,Harbour School,Juniper School,Lantern School,Meadow School,Orchard School,"
    "Quarry School,Raven School,Summit School"
)
HOBBIES = _listed(
    "archery,astronomy,birding,bowling,boxing,calligraphy,canoeing,chess,choral music,cycling,embroidery,fencing,"
    "folk dance,hiking,ice skating,juggling,kite flying,knitting,origami,puppetry,riding,rowing,swimming,tennis"
)

# {n} is the surname, {v} the value. Every sentence ends with a full stop; the numbers of templates share few factors,
# so that the wordings of one person differ for long.
TEMPLATES = {
    "birthplace": (
        "{n} was born in {v}.",
        "Born in {v}, {n} left young.",
        "They were born in {v}.",
        "{n} is a native of {v}.",
        "The birthplace of {n} is {v}.",
        "They come from {v}.",
        "{v} is where {n} was born.",
        "{n} hails from {v}.",
        "Their life began in {v}.",
    ),
    "birth_year": (
        "{n} was born in {v}.",
        "They were born in {v}.",
        "The year of birth is {v}.",
        "Their birth year was {v}.",
    ),
    "school": (
        "{n} attended {v}.",
        "They studied at {v}.",
        "They left {v} with honours.",
        "{n} is a graduate of {v}.",
        "At {v} they led the choir.",
    ),
    "occupation": (
        "{n} is {v}.",
        "They work as {v}.",
        "{n} trained as {v}.",
        "They became {v}.",
        "They earn a living as {v}.",
        "By trade {n} is {v}.",
        "Friends know {n} as {v}.",
    ),
    "residence": (
        "{n} lives in {v}.",
        "They live in {v}.",
        "{n} moved to {v}.",
        "Home is now {v}.",
        "They settled in {v}.",
        "Since then {v} has been home.",
        "{n} resides in {v}.",
        "They own a house in {v}.",
    ),
    "hobby": (
        "{n} enjoys {v}.",
        "They love {v}.",
        "{n} won a prize for {v}.",
        "Their hobby is {v}.",
        "They teach {v}.",
    ),
}

PLAIN_NAMES = 6 * 32 * 32 * 16  # culture, first name, surname's root, surname's ending
MIDDLE_NAMES = PLAIN_NAMES * (len(INITIALS) + 32)  # the same with an initial or a second first name between
MAX_PLACES = 6 * 12 * 8

_TEMPLATES = tuple(TEMPLATES.values())
_FIRST_FACT = Person._fields.index("birthplace")


def compose_name(number: int) -> tuple[str, str, int]:
    """The full name, surname and culture that a number below PLAIN_NAMES + MIDDLE_NAMES stands for; no two are alike.

    >>> compose_name(7), compose_name(98310)
    (('Brisa Albanacci', 'Albanacci', 1), ('Birka A. Almarsen', 'Almarsen', 0))
    """
    middle, number = divmod(number, PLAIN_NAMES)
    number, culture = divmod(number, 6)
    number, first = divmod(number, 32)
    ending, root = divmod(number, 32)
    words = CULTURES[culture]
    surname = words.roots[root] + words.endings[ending]
    if not middle:
        return f"{words.first[first]} {surname}", surname, culture
    between = f"{INITIALS[middle - 1]}." if middle <= len(INITIALS) else words.first[middle - 1 - len(INITIALS)]
    return f"{words.first[first]} {between} {surname}", surname, culture


def compose_place(number: int) -> str:
    """Town `number` below MAX_PLACES, a town of culture ``number % 6``; the same town however many there are.

    >>> [compose_place(number) for number in range(3)]
    ['Askeborg', 'Acquabella', 'Altaabad']
    """
    number, culture = divmod(number, 6)
    ending, root = divmod(number, 12)
    words = CULTURES[culture]
    return words.town_roots[root] + words.town_endings[(ending + root) % 8]


def compose_biography(person: Person, order: tuple[int, ...], style: int, wording: int) -> str:
    """One document: the name, then a sentence for each fact in `order`; 60 bits of `style` choose the templates.

    The next wording of the same person takes the next template of every fact, so that no sentence comes again soon.
    """
    sentences = []
    for fact in order:
        templates = _TEMPLATES[fact]
        template = templates[((style >> 10 * fact) + wording) % len(templates)]
        sentences.append(template.format(n=person.surname, v=person[_FIRST_FACT + fact]))
    return f"{person.name}. {' '.join(sentences)[:-1]} ."


def compose_question(person: Person) -> str:
    """What the person is asked, without the answer."""
    return f"Where was {person.name} born?"
