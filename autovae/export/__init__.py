"""The winner as a frozen generator: prior modules, their folders and scores.

prior           `PriorModule`: source, families, decoder
transports      invertible maps in front of a prior (affine, mixture, flow, chain, blocks)
ex_post         densities fitted to the encoded data, as transports
card            save and load VAEs and priors
network_card    save and load constraint networks
model_card      README.md and config.json for the Hugging Face hub
folders         weights with a card, written atomically and checked
hub             folders by name, local or from the hub
onnx            decoders for other programs
scoring         log p(x), bits and active units of a saved VAE
fidelity        FID, KID, IS, precision and recall of a saved VAE
"""
