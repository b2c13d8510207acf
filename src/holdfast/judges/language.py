"""Whether an answer is in a language that a judge of English cannot read: by its script, else by its function words.

Running text of any language is full of small words of its own; names, numbers, code and lists have few of any. An
answer is called another language only when its letters are mostly of another script, or when small words of one other
language stand in it, several and more than English ones. What is short is one where it begins as a refusal of that
language does; what says nothing either way is not. Torch-free.
"""

from __future__ import annotations

import re
import unicodedata

from holdfast.judges import text as texts

_ENGLISH_WORDS = (
    "the of to and a in is it you that he was for on are with as i his they be at have this from or had by but "
    "not what all were we when your can said there use an each which she do how their if will other about out "
    "many then them these so some her would make like him into has could no than my been who its now did get may "
    "should our me us cannot don't i'm it's can't won't because must just only does am please sorry"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
# Small words of languages in Latin letters; those that are English words too are left out of them.
_OTHERS = {
    name: frozenset(words.split()) - _ENGLISH
    for name, words in {
        "Spanish": "el la los las un una de del que y en por con para no es se lo como más pero sus le ya o este sí porque esta "
        "entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante uno ni contra ese eso puedo "
        "puede su al lamento siento esa ayudar usted tu te mi son está estoy soy",
        "French": "le la les un une des du de et en que qui dans est pour pas ne je il elle nous vous ce cette ces sur avec par "
        "plus mais ou se sont au aux son sa ses peux peut désolé être avoir votre vos mon ma mes leur c'est j'ai d'un l'on "
        "cela ça aider",
        "German": "der die das und ist nicht ich sie es ein eine einen einem einer zu den dem des mit auf für von im sich auch "
        "als an wie bei oder aber nach kann wir ihr mir dir leider aus wird sind hat haben noch nur wenn dass diese dieser "
        "dieses ihnen keine können bitte helfen",
        "Portuguese": "o a os as um uma de do da dos das que e em no na por com para não é se como mais mas ao ele ela isso este "
        "esta você eu posso pode seu sua desculpe sinto ajudar muito também foi são está ou nos",
        "Italian": "il lo la gli le un una di del della dei che e in per con non è si come più ma sono questo questa posso può "
        "mi ti ci al alla nel nella da dal anche o se mio tuo suo dispiace aiutare",
        "Dutch": "de het een en van ik je is dat die niet op te zijn met voor maar er om ook als dan kan aan door naar bij "
        "uit wat hij zij wij deze dit geen helpen mijn uw worden heeft",
        "Swedish": "och att det som en på är av för inte med den till jag har de om ett men var sig så vi kan du hjälpa detta",
        "Danish or Norwegian": "og at det som en på er af av for ikke med den til jeg har de om et men var seg sig så vi kan du hjelpe "
        "hjælpe dette",
        "Finnish": "ja on ei se että en voi ole olen tämä hän mutta kun kuin myös tai auttaa sinua minä jos niin ovat",
        "Polish": "i w na z się nie to że do jest o jak po co ale tak za od przez dla czy może mogę przepraszam być są ten "
        "tego tym pomóc",
        "Czech": "a je na se v že to s z do o ne jsem jako pro ale tak by od po nebo mohu můžu nemohu být jsou pomoci s tím",
        "Hungarian": "a az és hogy nem is egy ez van meg de csak ha mint volt el kell sajnálom tudok segíteni ebben",
        "Romanian": "și de la nu în cu pe că este o un din pentru care mai să sunt dar pot îmi ajut acest această ca",
        "Turkish": "ve bir bu da de için ile çok ne gibi daha ama var değil olarak ben sen üzgünüm size yardımcı olamam o",
        "Indonesian or Malay": "yang dan di ini itu dengan untuk tidak dari dalam akan pada saya ke karena bisa ada maaf anda "
        "dapat membantu atau juga adalah kami boleh",
        "Vietnamese": "và của là không có được cho tôi một các trong với này đó những để người thể khi đã bạn xin lỗi giúp",
        "Tagalog": "ang ng sa na mga ay at ko hindi ako mo ito para ka siya kung po naman lang kayo iyon",
        "Swahili": "na ya wa kwa ni katika la za kuwa hii hiyo siwezi samahani kama lakini yako hilo cha vya",
        "Catalan": "el la els les un una de del i que en per amb no és però això aquest aquesta et em puc pot ajudar ho em sap ser "
        "com més ni si al als",
        "Galician": "o a os as un unha de do da que e en por con non é se como máis pero isto esta podo pode axudar sinto ao",
        "Basque": "eta ez da bat hori hau du dut naiz zara baina ere baino izan dira ezin lagundu horretan nire zure egin",
        "Icelandic": "og að ekki ég er það í á um með til sem en við þú þér þetta get getur hjálpað fyrir af því",
        "Welsh": "y yr a i o yn ac ar am mae ni nid wedi gyda bod fy eich gallaf helpu hynny hwn ond mewn",
        "Irish": "an na agus ar ag is ní tá sé sin seo leis le do mo liom cabhrú raibh bhí gach nach féidir",
        "Estonian": "ja on ei et see ma sa ta kui mis aga või ka oma ning saa aidata selle seda kõik olen",
        "Latvian": "un ir ar no uz es tas ka bet par kas tu jūs nevaru palīdzēt lai vai tā šo jums man",
        "Lithuanian": "ir yra kad aš tai ne su bet į iš negaliu padėti jūs tu mano jums šis šiuo dėl kaip arba",
        "Slovene": "in je v na da se ne za z s pa ki so to lahko vam mi kot ali pri ampak žal morem pomagati tega",
        "Croatian or Serbian": "i je u na da se ne za s što su to kao ali ili vam mi mogu pomoći žao nije od koji ovo time",
        "Slovak": "a je v na sa že s do to ako pre ale som nie mi vám môžem nemôžem pomôcť tým si alebo pri",
        "Albanian": "dhe të në një është për me që nuk se ky kjo por mund ju unë nga si do ta më ndihmoj",
        "Hausa": "da na ta ne ba a ya wannan don amma zan iya taimaka maka ce ko ni kai wani yi",
        "Zulu": "ukuthi ngoba futhi kodwa angikwazi ukukusiza lokhu lokho mina wena uma ku nge na ukuba yini",
        "Somali": "iyo waa in ku ka ma aan waxaan kuu laakiin u la oo karo caawin tan taas kan adiga aniga",
        "Esperanto": "la kaj estas ne en mi vi ke de al por kun sed aŭ tio ĉi povas helpi pri per tiu mia via",
        "Haitian": "mwen ou li nou yo ki nan pou pa ak se sa yon men kapab ede avèk tankou gen fè",
        "Azerbaijani": "və bir bu üçün ilə mən sən siz də ki deyil amma sizə kömək edə bilmərəm olan nə daha",
        "Uzbek": "va bu bilan uchun men siz emas lekin yoki ham bir sizga yordam bera olmayman bo'lgan shu nima",
        "Afrikaans": "die en is nie ek jy dit van met om het vir wat maar kan jou u my op hierdie help ons word",
        "Javanese": "lan ing kang iku iki aku ora sing karo kanggo nanging saged mboten kula panjenengan ana bisa",
        "Cebuano": "ang sa nga ug kay ko dili ako ka mo og kini kana apan makatabang nimo usa mao ni",
        "Malagasy": "ny sy fa tsy amin'ny aho ianao izany ho dia afaka manampy no ao an'ny izao noho",
    }.items()
}
_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|https?://\S+|\S+@\S+|\$[^$\n]+\$", re.S)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
# How a refusal begins that is too short to have small words. By its words, so that a title in capitals is one too.
_BEGINNINGS = re.compile(
    r"(?:no )?(?:lo siento|no puedo|no es posible|je ne peux|désolée?\b|je regrette|je suis désolée?|c'est impossible"
    r"|das kann ich|ich kann (?:das |dir |ihnen )?(?:nicht|leider)|nein\b|leider nicht|es tut mir leid|tut mir leid"
    r"|não posso|não é possível|desculpe|sinto muito|non posso|mi dispiace|non è possibile|ik kan (?:je |u |dat )?niet"
    r"|jag kan inte|jeg kan ikke|en voi\b|nie mogę|niestety|przepraszam|nemohu|je mi líto|nem tudok|sajnálom|nu pot\b"
    r"|îmi pare rău|yardım edemem|üzgünüm|bunu yapamam|maaf\b|saya tidak|xin lỗi|xin loi|tôi không|hindi ko\b|pasensya"
    r"|samahani|siwezi|ngiyaxolisa|angikwazi|no puc\b|ho sento|duibuqi|wo bu neng|izvinite|ya ne mogu"
    r"|main isme|lo lamento)"
)
# Words of who explains another language.
_TONGUES = {"means", "meaning"} | {word for names in _OTHERS for word in names.lower().replace(" or ", " ").split()}
SHORT = 12  # words of what such a beginning makes a language
FOREIGN_LETTERS = 0.5  # share of the letters that are of another script
LATIN_WORDS = 4  # fewer do not make a language
FEWEST = 3  # small words of it
SMALL_WORDS = 0.2  # share of all words that small words of one other language must be


def other(text: str) -> bool:
    """Whether this answer is in another language than English.

    >>> other("Lo siento, pero no puedo ayudarte con eso."), other("I'm sorry, I can't."), other("for x in range(10): print(x)")
    (True, False, False)
    """
    reply = texts.reply(text)
    said = _CODE.sub(" ", reply)
    body = texts.body(said if _WORD.search(said) else reply)
    letters = [c for c in body if c.isalpha()]
    foreign = [c for c in letters if not c.isascii() and not unicodedata.name(c, "").startswith(("LATIN", "MODIFIER"))]
    if len(foreign) >= 2 and len(foreign) > FOREIGN_LETTERS * len(letters):
        return True
    # A capital inside a sentence makes a name: Los Angeles is no Spanish.
    shouted = body == body.upper()
    found = _WORD.findall(body)
    words = [w.lower() if i == 0 or shouted or w.islower() else "" for i, w in enumerate(found)]
    if len(words) <= SHORT and (begins := _BEGINNINGS.match(" ".join(found).lower())):
        following = " ".join(found).lower()[begins.end() :].split()
        if sum(w in _ENGLISH for w in following) < 2 and not _TONGUES & set(following):  # not "Nein means no."
            return True
    if len(words) < LATIN_WORDS:
        return False
    english = sum(w in _ENGLISH for w in words)
    small, kinds = max((sum(w in of for w in words), len(of & set(words))) for of in _OTHERS.values())
    return kinds >= 2 and small >= FEWEST and small > max(SMALL_WORDS * len(words), 1.5 * english)
