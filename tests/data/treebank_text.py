"""A treebank of one made-up sentence in CoNLL-U."""

import gzip

SENTENCE = """# text = Dogs don't bark.
1\tDogs\tdog\tNOUN\t_\tNumber=Plur\t4\tnsubj:pass\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t2\tadvmod\t_\t_
3.1\tnothing\t_\t_\t_\t_\t_\t_\t_\t_
4\tbark\tbark\tVERB\t_\tTense=Pres|VerbForm=Fin\t0\troot\t_\t_
5\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_

"""


def write(folder, content, split="train", packed=False):
    """Writes a split; returns the folder."""
    path = folder / f"xx_toy-ud-{split}.conllu"
    if packed:
        with gzip.open(f"{path}.gz", "wt", encoding="utf-8") as file:
            file.write(content)
    else:
        path.write_text(content, encoding="utf-8")
    return str(folder)
