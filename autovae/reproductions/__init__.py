"""Experiments of papers, run again: `autovae run NAME` in a short setting, `--full` in the paper's.

Papers:
binarized_mnist                     plain VAE (Chadebec, Vincent and Allassonniere, 2022)
iwae_mnist                          importance weighting (Burda, Grosse and Salakhutdinov, 2016)
vr_alpha, vr_curves                 the Renyi bound (Li and Turner, 2016)
continuous_bernoulli                its normaliser (Loaiza-Ganem and Cunningham, 2019)
conditional_digits, digit_answers, conditional_digits_report
                                    digits from an unconditional generator (Knollmueller and Ensslin, 2021, section 5.1)
riddle, riddle_solving, many_fits, riddle_report
                                    the riddle of three digits (Knollmueller and Ensslin, 2021, section 5.2)
sampler_regret                      samplers replayed on a table (after Eggensperger and others, 2015)

Shared:
registry        the table                       files           their study files
settings        what study files may say        run             run or resume one
notebook        results folder and its steps    lr_schedule     fits in stages of learning rate
evaluation      log p(x) and ELBO at test points    comparison      means, errors and paired leads
digit_modules   generators, classifiers, judges     digit_pictures  pictures in rows
"""
