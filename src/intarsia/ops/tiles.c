/* A running mean of maps: plain C, compiled by compiled.py on the user's machine.

   logits <- mean + share (logits - mean), in place, over (classes, rows, width) of each; steps are those of class, row and pixel,
   so that both orders of memory (NCHW and channels last) are read as they are. share is a number for each row or each pixel of
   a row. */

#include <stdint.h>

#define SIMD _Pragma("omp simd")

static inline float mixed(float mean, float logit, float share) { return mean + share * (logit - mean); }

static void by_class(const float *mean, int64_t mean_step, float *logits, float share, long classes)
{
    if (mean_step == 1) {
        SIMD for (long k = 0; k < classes; k++) logits[k] = mixed(mean[k], logits[k], share);
    } else {
        for (long k = 0; k < classes; k++) logits[k] = mixed(mean[k * mean_step], logits[k], share);
    }
}

static void by_pixel(const float *mean, int64_t mean_step, float *logits, int64_t step, const float *share, int64_t share_step, long width)
{
    if (mean_step == 1 && step == 1 && share_step == 1) {
        SIMD for (long i = 0; i < width; i++) logits[i] = mixed(mean[i], logits[i], share[i]);
    } else if (mean_step == 1 && step == 1) {
        float one = *share;
        SIMD for (long i = 0; i < width; i++) logits[i] = mixed(mean[i], logits[i], one);
    } else {
        for (long i = 0; i < width; i++) {
            float *logit = logits + i * step;
            *logit = mixed(mean[i * mean_step], *logit, share[i * share_step]);
        }
    }
}

void mix(const float *mean, const int64_t *mean_steps, float *logits, const int64_t *steps, const float *share, const int64_t *share_steps,
         int64_t classes, int64_t rows, int64_t width)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *m = mean + r * mean_steps[1], *s = share + r * share_steps[0];
        float *z = logits + r * steps[1];
        if (steps[0] == 1) {
            for (int64_t i = 0; i < width; i++)
                by_class(m + i * mean_steps[2], mean_steps[0], z + i * steps[2], s[i * share_steps[1]], (long)classes);
        } else {
            for (int64_t k = 0; k < classes; k++)
                by_pixel(m + k * mean_steps[0], mean_steps[2], z + k * steps[0], steps[2], s, share_steps[1], (long)width);
        }
    }
}
