"""Common English words. Each is one token of BERT's uncased vocabulary, so that a text's tokens follow from its words."""

_LIST = """
    able about above across act action active actually added after again against age ago air all allow almost alone along
    already also although always among amount ancient and animal another answer any appear apple area arm army around art
    ask away baby back bad bag ball band bank bar base basic battle be beach bear beat beautiful became because become bed
    been before began begin behind being believe below best better between big bird bit black blood blow blue board boat
    body bone book born both bottom bought box boy branch bread break bridge bright bring broad broke brother brought brown
    build building built burn busy but buy by call came camp can capital car card care carry case catch caught cause cell
    center century certain chair chance change character charge chart check chief child children choose church circle city
    claim class clean clear climb clock close clothes cloud coast coat cold collect color column come common company compare
    complete condition consider contain continue control cook cool copy corn corner correct cost could count country course
    court cover create cross crowd cry current cut dance danger dark daughter day dead deal death decide deep degree depend
    describe desert design develop did die difference different difficult direct discuss distance divide do doctor does dog
    dollar door double down draw dream dress drink drive drop dry during each early earth east easy eat edge education effect
    egg eight either electric element else empty end enemy energy engine enjoy enough enter entire equal especially even
    evening event ever every example except expect experience experiment explain eye face fact fair fall family famous far
    farm fast father favor fear feed feel feet fell felt few field fight figure fill final find fine finger finish fire
    first fish five flat floor flow flower fly follow food foot for force foreign forest form forward found four free fresh
    friend from front fruit full game garden gas gather gave general gentle get girl give glass go gold gone good got
    government grand grass great green grew ground group grow guess guide gun had hair half hand happen happy hard has hat
    have he head hear heart heat heavy held help her here high hill him his history hit hold hole home hope horse hospital
    hot hour house how huge human hundred hunt ice idea if important inch include increase indicate industry insect inside
    instead interest iron island it job join judge jump just keep kept key kill kind king knew know known lady lake land
    language large last late laugh law lay lead learn least leave led left leg length less let letter level lie life light
    like line list listen little live local log long look lost lot loud love low machine made magic main major make man many
    map mark market mass master match material matter may mean measure meat meet melody men metal method middle might mile
    milk million mind mine minute miss modern moment money month moon more morning most mother motion mountain mouth move
    much music must name nation natural nature near necessary neck need never new next night nine noise none noon north nose
    not note nothing notice number object ocean of off offer office often oil old on once one only open operate opposite or
    order original other our out outside over own page paint pair paper parent part particular party pass past path pattern
    pay people perhaps period person phrase picture piece place plain plan plane planet plant play please point poor
    population port position possible post pound power practice prepare present press pretty print probably problem process
    produce product program proper property protect prove provide pull push put question quick quiet quite race radio rain
    raise ran range rather reach read ready real reason receive record red region remember repeat reply report represent
    require rest result return rich ride right ring rise river road rock roll room root rope round row rule run safe said
    sail salt same sand sat save saw say scale school science score sea search season seat second section see seed seem
    select self sell send sense sent separate serve set settle seven several shall shape share sharp she ship shoe shop
    short should shoulder show side sight sign silent silver similar simple since sing single sister sit six size skill skin
    sky sleep slip slow small smell smile snow so soft soil soldier solution some son song soon sound south space speak
    special speech speed spell spend spoke spot spread spring square stand star start state station stay steel step stick
    still stone stood stop store story straight strange stream street stretch string strong student study subject success
    such sudden sugar suggest suit summer sun supply support sure surface surprise swim system table tail take talk tall
    teach team teeth tell temperature ten term test than thank that the their them then there these they thick thin thing
    think third this those though thought thousand three through throw time tiny together told tone too took tool top total
    touch toward town track trade train travel tree triangle trip trouble truck true try tube turn twenty two type under unit
    until up use usual valley value vary very view village visit voice vowel wait walk wall want war warm was wash watch
    water wave way we wear weather week weight well went were west what wheel when where whether which while white who whole
    whose why wide wife wild will win wind window winter wire wish with woman women wonder wood word work world would write
    written wrong yard year yellow yes yet you young your
"""
WORDS: tuple[str, ...] = tuple(_LIST.split())
