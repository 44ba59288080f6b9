"""Beliefs as densities: tensors in, tensors out.

families         which laws a latent may follow: a table of ten
location_scale   what a family must provide: log density, CDF, maps to and from a standard normal
pairing          which (posterior, prior) family each latent has, grouped so that every pair is computed once
divergences      how KL(q || p) is computed for each pair: `kl`, `kl_kind`
cross_entropy    how E[-log p] becomes a divergence with a gradient
elementary       closed forms by elementary functions
kl_special       closed forms by special functions
special          the special functions that torch lacks
quadrature       fixed rules for pairs without a closed form
integration      moments, entropy and divergences of any law, from its log density
regions          where a conditional pair is finite, and a map onto that region
renyi            Renyi divergences: `renyi`
renyi_closed     their closed forms
regularisers     which divergence regularises the ELBO: KL, Renyi, Jeffreys
likelihoods/     heads p(x|z)
learned_priors   mixture, VampPrior and flow priors
posteriors       the flow posterior
mixtures         densities of mixtures, and their exact map to a standard normal
flows            masked autoregressive flows for several members at once
"""
