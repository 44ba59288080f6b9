/* A whole step of plain VAEs in one call: normal posterior and prior, a head that is linear in x, the ELBO with its KL in
   closed form, chains of linear layers with rectifiers. What is called is what is called one by one without it. */

#include "chains.h"

#ifdef HAS_PRODUCTS

/* What stays from step to step. A chain has its layers, room for their outputs and for the outputs' gradients (but the
   last's), and the places of the biases' gradients. */
typedef struct {
    long depth;
    const Layer *layers;
    float *const *outputs, *const *slopes, *const *sums;
} ChainPlan;

typedef struct {
    long members, samples, points, latents, features, head;
    ChainPlan encoder, decoder;
    float *scale, *z, *kl, *value, *slope, *of_z, *of_raw; /* slope: of the logits */
    const float *of_value, *of_kl;                         /* what the loss makes of them: always the same */
    long count, first; /* `first` is the task of the weights that x meets */
    Task *tasks;
    const float *rates;
    double beta1, beta2;
    float limit, epsilon;
} Plan;

/* x (points, in) for all members, `target` what the head is asked about. Members of xi begin `apart` numbers from each
   other, its samples `next`. */
EXPORT int whole_step(const Plan *p, const float *x, const float *target, const float *xi, long apart, long next,
                      double grow, double shrink, long threads) {
    const long members = p->members, rows = p->samples * p->points;
    const ChainPlan *e = &p->encoder, *d = &p->decoder;
    const float *raw = e->outputs[e->depth - 1], *logits = d->outputs[d->depth - 1];
    int failed = chain_forward(members, p->points, e->depth, e->layers, x, 0, e->outputs, threads);
    normal_latents(members, p->samples, p->points, p->latents, raw, xi, apart, next, p->limit, p->scale, p->z, p->kl,
                   threads);
    failed |= chain_forward(members, rows, d->depth, d->layers, p->z, rows * p->latents, d->outputs, threads);
    linear_in_x(p->head, members * rows, p->points, p->features, target, logits, p->value, p->slope, threads);
    scale_rows(members * rows, p->features, p->slope, p->of_value, threads);
    failed |= chain_backward(members, rows, d->depth, d->layers, (const float *const *)d->outputs, p->slope, d->slopes,
                             d->sums, p->of_z, threads);
    normal_latents_back(members, p->samples, p->points, p->latents, raw, xi, apart, next, p->limit, p->scale, p->of_z,
                        p->of_kl, p->of_raw, threads);
    failed |= chain_backward(members, p->points, e->depth, e->layers, (const float *const *)e->outputs, p->of_raw,
                             e->slopes, e->sums, NULL, threads);
    if (failed) return failed; /* before a weight moves */
    p->tasks[p->first].a = x;
    return adam_steps(p->count, p->tasks, p->rates, grow, p->beta1, p->beta2, shrink, p->epsilon, threads);
}

#endif
