"""What a study found, from its results folder.

html          build_report: the page of one study          compare       the page of several studies
parts/        values of each section of the page           templates/    Jinja2: how pages and README.md look
content       a study's material while a page is made      page          drawings and tables, rendering of templates
record        the results folder as plain data             readme        README.md of a results folder
finals        means over seeds, gains over the baseline    formulas      objective and score with their numbers
examples      data points kept for reconstructions         losses        training losses by epoch

importance    importances of the belief axes               axes          the belief axes of a study
fanova        functional ANOVA of a forest                 forest        random forests of scores
boxes         a tree as boxes on the atoms of its axes     interactions  pair interactions of a tree

figures/      figures of a study                           theme         colours, SVG that follows the page's theme
latents       information, traversals, interpolations      landscape     KL over location and scale
pictures      mosaics and line plots of data points        samples       `autovae sample`: samples as files
beliefs       `autovae beliefs`: how divergences are computed
"""
