/* Mean-field inference on the permutohedral lattice of lattice.c: plain C, compiled by compiled.py on the user's machine.

   Maps are (pixels, K') floats, K' the classes padded to a whole number of vectors. Threads run the same sequence of phases;
   each takes parts of a phase until none is left, so that one thread alone gets through, and others may join late. */

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SIMD _Pragma("omp simd")
#define INLINE static inline __attribute__((always_inline))

enum { TAPS = 4, WIDE = 16, MOST = 16, PATIENCE = 256 };
static const float NEVER = -__builtin_inff(), FAINT = -60;

typedef struct {
    atomic_long next, done;
    long room[14]; /* a cache line or two of its own */
} Phase;

typedef struct {
    int64_t height, width, corners, rows, strips, extras; /* rows: with the empty one; corners: 0 without a lattice */
    const int32_t *corner;    /* (pixels, corners) */
    float *weight;            /* (pixels, corners) */
    const int32_t *neighbour; /* (corners, rows, 2) */
    const int32_t *extra;     /* (extras, 2): a row, and its head */
    const int64_t *base;      /* (strips + 1): rows before a strip's own */
    const int64_t *start;     /* (strips + 1): a strip's first image row */
    float *x, *y;             /* (rows, K') each, the first row 0 */
} Lattice;

/* Of gaussian.c. */
typedef void Down(const float *map, int64_t height, int64_t width, int64_t radius, const float *taps, const float *scale_y,
                  const float *scale, int64_t y, float *const *out, float *table);
typedef void Along(const float *in, int64_t width, int64_t step, int64_t radius, const float *taps, float *out);

typedef struct {
    const Lattice *lattice;
    Phase *phase;
    int64_t classes, iterations, radius;
    const float *logits;           /* (K, H, W), class_step apart, rows row_step, pixels next to each other */
    int64_t class_step, row_step;
    float lowest;                  /* logarithm of the least probability */
    float bilateral, smoothness;   /* weights; 0: no such kernel */
    const float *taps;             /* (2 radius + 7): the Gaussian, three zeros at either end */
    const float *scale_y, *scale_x; /* (H), (W): 1 / sqrt of the Gaussian's sum inside the image */
    float *unary, *q, *p;          /* (pixels, K') each: log p, and Q of this iteration and the next */
    float *out;                    /* (K, H, W): log Q */
    Down *down;
    Along *along;
    atomic_long wrong;             /* logits that have no softmax were met */
} Field;

typedef struct {
    const Lattice *lattice;
    Phase *phase;
    int64_t reversed;
    const float *in; /* (pixels, K') */
    float *out;      /* (pixels, K') */
} Filter;

static void wait_for(atomic_long *done, long count)
{
    for (long turn = 0; atomic_load(done) < count; turn++) {
        if (turn > PATIENCE) sched_yield();
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
}

/* One phase of `COUNT` parts: i is the part. */
#define TOGETHER(PHASE, COUNT, WORK) \
    do { \
        Phase *phase_ = (PHASE); \
        long count_ = (long)(COUNT), i; \
        while ((i = atomic_fetch_add(&phase_->next, 1)) < count_) { \
            WORK; \
            atomic_fetch_add(&phase_->done, 1); \
        } \
        wait_for(&phase_->done, count_); \
    } while (0)

/* Vectors of N floats; e^x for x <= 0 to 2e-7, by 2^n e^r with |r| <= ln 2 / 2 and Taylor's first terms.
   0 below e^FAINT: products with what is smaller still would be denormal, which processors are slow at. */
#define VECTOR(N) \
    typedef float v##N __attribute__((vector_size(4 * N))); \
    typedef int32_t i##N __attribute__((vector_size(4 * N))); \
    INLINE v##N larger_##N(v##N a, v##N b) \
    { \
        i##N first = a > b; \
        return (v##N)(((i##N)a & first) | ((i##N)b & ~first)); \
    } \
    INLINE v##N exp_##N(v##N x) \
    { \
        i##N seen = x > FAINT; \
        v##N t = x * 1.44269504f + 12582912.0f, n = t - 12582912.0f; \
        v##N r = (x - n * 0.693359375f) + n * 2.12194440e-4f; \
        v##N e = r * (1 / 720.0f) + 1 / 120.0f; \
        e = e * r + 1 / 24.0f; \
        e = e * r + 1 / 6.0f; \
        e = e * r + 0.5f; \
        e = e * r + 1; \
        e = e * r + 1; \
        e *= (v##N)(((i##N)t + (127 - 0x4B400000)) << 23); \
        return (v##N)((i##N)e & seen); \
    }

#define HALVES(N, HALF) \
    INLINE float most_##N(v##N x) \
    { \
        union { v##N whole; v##HALF half[2]; } u = {x}; \
        return most_##HALF(larger_##HALF(u.half[0], u.half[1])); \
    } \
    INLINE float sum_##N(v##N x) \
    { \
        union { v##N whole; v##HALF half[2]; } u = {x}; \
        return sum_##HALF(u.half[0] + u.half[1]); \
    }

VECTOR(4)
VECTOR(8)
VECTOR(16)
INLINE float most_4(v4 x)
{
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}
INLINE float sum_4(v4 x) { return (x[0] + x[1]) + (x[2] + x[3]); }
HALVES(8, 4)
HALVES(16, 8)

/* Natural logarithm of a number from 1 on. */
INLINE float log_of(float x)
{
    union { float number; int32_t bits; } u = {x};
    int32_t n = (u.bits - 0x3F3504F3) >> 23;
    u.bits -= n * (1 << 23);
    float z = (u.number - 1) / (u.number + 1), s = z * z;
    return (float)n * 0.69314718f + 2 * z * (1 + s * (1 / 3.0f + s * (1 / 5.0f + s * (1 / 7.0f + s / 9))));
}

INLINE long least(long a, long b) { return a < b ? a : b; }

INLINE long blur_parts(const Lattice *lattice) { return lattice->strips > 1 ? 4 * lattice->strips : 1; }

/* Rows that a strip's vertices have in common with those of other strips: summed at the head before the blur, ... */
#define GATHERED(NAME, V, NV) \
    static void gather_##NAME(const Lattice *lattice, V *x, long nv, long part) \
    { \
        for (long i = 0; i < lattice->extras; i++) { \
            long row = lattice->extra[2 * i], head = lattice->extra[2 * i + 1]; \
            if (head % lattice->strips == part) \
                for (long v = 0; v < (NV); v++) x[head * (NV) + v] += x[row * (NV) + v]; \
        } \
    } \
    /* ... and given back after it. */ \
    static void scatter_##NAME(const Lattice *lattice, V *x, long nv, long part) \
    { \
        for (long i = 0; i < lattice->extras; i++) { \
            long row = lattice->extra[2 * i], head = lattice->extra[2 * i + 1]; \
            if (row > lattice->base[part] && row <= lattice->base[part + 1]) \
                for (long v = 0; v < (NV); v++) x[row * (NV) + v] = x[head * (NV) + v]; \
        } \
    } \
    static void clear_##NAME(const Lattice *lattice, V *x, long nv, long part) \
    { \
        long first = part ? lattice->base[part] + 1 : 0, last = lattice->base[part + 1] + 1; \
        memset((void *)(x + first * (NV)), 0, (size_t)((last - first) * (NV)) * sizeof(V)); \
    } \
    static void blur_##NAME(const Lattice *lattice, const V *in, V *out, long nv, long j, long part) \
    { \
        long parts = blur_parts(lattice), first = lattice->rows * part / parts, last = lattice->rows * (part + 1) / parts; \
        const int32_t *near = lattice->neighbour + 2 * j * lattice->rows; \
        for (long row = first; row < last; row++) { \
            const V *a = in + near[2 * row] * (long)(NV), *b = in + near[2 * row + 1] * (long)(NV); \
            for (long v = 0; v < (NV); v++) out[row * (NV) + v] = in[row * (NV) + v] + 0.5f * (a[v] + b[v]); \
        } \
    } \
    INLINE void splat_##NAME(const Lattice *lattice, V *x, long nv, const int32_t *corner, const float *weight, const V *q) \
    { \
        for (long c = 0; c < lattice->corners; c++) { \
            V *row = x + corner[c] * (long)(NV); \
            for (long v = 0; v < (NV); v++) row[v] += weight[c] * q[v]; \
        } \
    } \
    INLINE void slice_##NAME(const Lattice *lattice, const V *x, long nv, const int32_t *corner, const float *weight, V *sum) \
    { \
        for (long c = 0; c < lattice->corners; c++) { \
            const V *row = x + corner[c] * (long)(NV); \
            for (long v = 0; v < (NV); v++) sum[v] += weight[c] * row[v]; \
        } \
    } \
    /* After a splat into *x: sums of extra rows, and the blur; *x is where it ended, *y is free. */ \
    INLINE Phase *blurred_##NAME(const Lattice *lattice, Phase *phase, long nv, V **x, V **y, int reversed) \
    { \
        if (lattice->extras) TOGETHER(phase++, lattice->strips, gather_##NAME(lattice, *x, nv, i)); \
        for (long j = 0; j < lattice->corners; j++) { \
            long way = reversed ? lattice->corners - 1 - j : j; \
            TOGETHER(phase++, blur_parts(lattice), blur_##NAME(lattice, *x, *y, nv, way, i)); \
            V *other = *x; \
            *x = *y; \
            *y = other; \
        } \
        return phase; \
    } \
    static void enter_##NAME(const Filter *filter, V *x, long nv, long part) \
    { \
        const Lattice *lattice = filter->lattice; \
        long from = lattice->start[part] * lattice->width, to = lattice->start[part + 1] * lattice->width; \
        clear_##NAME(lattice, x, nv, part); \
        for (long p = from; p < to; p++) { \
            long at = p * lattice->corners; \
            splat_##NAME(lattice, x + lattice->base[part] * (NV), nv, lattice->corner + at, lattice->weight + at, \
                         (const V *)filter->in + p * (NV)); \
        } \
    } \
    static void leave_##NAME(const Filter *filter, V *x, long nv, long part) \
    { \
        const Lattice *lattice = filter->lattice; \
        long from = lattice->start[part] * lattice->width, to = lattice->start[part + 1] * lattice->width; \
        scatter_##NAME(lattice, x, nv, part); \
        for (long p = from; p < to; p++) { \
            V *sum = (V *)filter->out + p * (NV); \
            long at = p * lattice->corners; \
            memset((void *)sum, 0, (size_t)(NV) * sizeof(V)); \
            slice_##NAME(lattice, x + lattice->base[part] * (NV), nv, lattice->corner + at, lattice->weight + at, sum); \
        } \
    } \
    static void filter_##NAME(Filter *filter, long nv) \
    { \
        const Lattice *lattice = filter->lattice; \
        V *x = (V *)lattice->x, *y = (V *)lattice->y; \
        Phase *phase = filter->phase; \
        TOGETHER(phase++, lattice->strips, enter_##NAME(filter, x, nv, i)); \
        phase = blurred_##NAME(lattice, phase, nv, &x, &y, (int)filter->reversed); \
        TOGETHER(phase, lattice->strips, leave_##NAME(filter, x, nv, i)); \
    }


/* Logits of an image row, (W, K') with the classes of a pixel together; whether any is NaN. */
static int turn(const Field *field, long y, long k, float *row)
{
    long width = field->lattice->width, wrong = 0;
    for (long c = 0; c < k; c++) {
        const float *z = field->logits + c * field->class_step + y * field->row_step;
        if (c >= field->classes)
            for (long x = 0; x < width; x++) row[x * k + c] = NEVER;
        else
            for (long x = 0; x < width; x++) {
                row[x * k + c] = z[x];
                wrong |= z[x] != z[x];
            }
    }
    return (int)wrong;
}

static void turn_back(const Field *field, long y, long k, const float *row)
{
    long width = field->lattice->width, size = width * field->lattice->height;
    for (long c = 0; c < field->classes; c++) {
        float *out = field->out + c * size + y * width;
        for (long x = 0; x < width; x++) out[x] = row[x * k + c];
    }
}

#define SOFTMAX(NAME, V, NV, N) \
    /* e^(z - largest) into q, and their sum. */ \
    INLINE float exps_##NAME(const V *z, V *q, long nv, float *largest) \
    { \
        V most = z[0], sum; \
        for (long v = 1; v < (NV); v++) most = larger_##N(most, z[v]); \
        *largest = most_##N(most); \
        for (long v = 0; v < (NV); v++) { \
            q[v] = exp_##N(z[v] - *largest); \
            sum = v ? sum + q[v] : q[v]; \
        } \
        return sum_##N(sum); \
    } \
    /* A strip's log p and first Q from the logits, and Q's splat into x. */ \
    static void begin_##NAME(Field *field, V *x, float *room, long nv, long part) \
    { \
        const Lattice *lattice = field->lattice; \
        long width = lattice->width; \
        if (lattice->corners) clear_##NAME(lattice, x, nv, part); \
        for (long y = lattice->start[part]; y < lattice->start[part + 1]; y++) { \
            if (turn(field, y, (NV) * N, room)) atomic_store(&field->wrong, 1); \
            for (long i = 0; i < width; i++) { \
                long p = y * width + i, at = p * lattice->corners; \
                V z[MANY_##NAME], q[MANY_##NAME], *u = (V *)field->unary + p * (NV); \
                float most, sum; \
                for (long v = 0; v < (NV); v++) z[v] = ((const V *)room)[i * (NV) + v]; \
                sum = exps_##NAME(z, q, nv, &most); \
                if (!(most > -__builtin_inff() && most < __builtin_inff())) atomic_store(&field->wrong, 1); \
                most += log_of(sum); \
                for (long v = 0; v < (NV); v++) { \
                    V lowest = (V){0} + field->lowest; \
                    z[v] = larger_##N(z[v] - most, lowest); \
                } \
                for (long c = field->classes; c < (NV) * N; c++) ((float *)z)[c] = NEVER; \
                sum = 1 / exps_##NAME(z, q, nv, &most); \
                for (long v = 0; v < (NV); v++) { \
                    u[v] = z[v]; \
                    q[v] *= sum; \
                    ((V *)field->q)[p * (NV) + v] = q[v]; \
                } \
                splat_##NAME(lattice, x + lattice->base[part] * (NV), nv, lattice->corner + at, lattice->weight + at, q); \
            } \
        } \
    } \
    /* A row of the next Q from log p, the messages in x and s (the Gaussian's), with its splat into y; or of log Q. */ \
    INLINE void row_##NAME(Field *field, const V *x, V *y, const V *s, V *out, long nv, long row, int last) \
    { \
        const Lattice *lattice = field->lattice; \
        for (long i = 0; i < lattice->width; i++) { \
            long p = row * lattice->width + i, at = p * lattice->corners; \
            V z[MANY_##NAME], q[MANY_##NAME]; \
            float most, sum, scale = field->smoothness * field->scale_x[i]; \
            for (long v = 0; v < (NV); v++) z[v] = (V){0}; \
            slice_##NAME(lattice, x, nv, lattice->corner + at, lattice->weight + at, z); \
            for (long v = 0; v < (NV); v++) \
                z[v] = ((const V *)field->unary)[p * (NV) + v] + field->bilateral * z[v] + scale * s[i * (NV) + v]; \
            sum = exps_##NAME(z, q, nv, &most); \
            if (last) { \
                most += log_of(sum); \
                for (long v = 0; v < (NV); v++) out[i * (NV) + v] = z[v] - most; \
                continue; \
            } \
            sum = 1 / sum; \
            for (long v = 0; v < (NV); v++) { \
                q[v] *= sum; \
                ((V *)field->p)[p * (NV) + v] = q[v]; \
            } \
            splat_##NAME(lattice, y, nv, lattice->corner + at, lattice->weight + at, q); \
        } \
    } \
    static void update_##NAME(Field *field, const float *q, float *p, V *x, V *y, float *room, long nv, long part, int last) \
    { \
        const Lattice *lattice = field->lattice; \
        long k = (NV) * N, width = lattice->width * k, edge = (long)field->radius * k, wide = width + 2 * edge; \
        float *s = room, *scale = room + width, *lines[TAPS], *table = room + 2 * width + TAPS * (wide + 64); \
        Field now = *field; \
        now.q = (float *)q; \
        now.p = p; \
        memset(s, 0, (size_t)width * sizeof(float)); \
        for (long i = 0; i < width; i++) scale[i] = field->scale_x[i / k]; \
        for (int o = 0; o < TAPS; o++) { \
            lines[o] = room + 2 * width + o * (wide + 64) + edge; \
            memset(lines[o] - edge, 0, (size_t)edge * sizeof(float)); \
            memset(lines[o] + width, 0, (size_t)edge * sizeof(float)); \
        } \
        if (lattice->corners) { \
            scatter_##NAME(lattice, x, nv, part); \
            if (!last) clear_##NAME(lattice, y, nv, part); \
        } \
        for (long row = lattice->start[part]; row < lattice->start[part + 1]; row += TAPS) { \
            long rows = least(TAPS, lattice->start[part + 1] - row); \
            if (field->smoothness > 0) \
                field->down(q, lattice->height, width, field->radius, field->taps, field->scale_y, scale, row, lines, table); \
            for (long o = 0; o < rows; o++) { \
                if (field->smoothness > 0) field->along(lines[o] - edge, width, k, field->radius, field->taps, s); \
                row_##NAME(&now, x + lattice->base[part] * (NV), y + lattice->base[part] * (NV), (const V *)s, (V *)lines[o], nv, \
                           row + o, last); \
                if (last) turn_back(field, row + o, k, lines[o]); \
            } \
        } \
    } \
    static void field_##NAME(Field *field, float *room, long nv) \
    { \
        const Lattice *lattice = field->lattice; \
        V *x = (V *)lattice->x, *y = (V *)lattice->y; \
        float *q = field->q, *p = field->p; \
        Phase *phase = field->phase; \
        TOGETHER(phase++, lattice->strips, begin_##NAME(field, x, room, nv, i)); \
        if (atomic_load(&field->wrong)) return; \
        for (long n = 0; n < field->iterations; n++) { \
            if (lattice->corners) phase = blurred_##NAME(lattice, phase, nv, &x, &y, 0); \
            TOGETHER(phase++, lattice->strips, update_##NAME(field, q, p, x, y, room, nv, i, n + 1 == field->iterations)); \
            float *other = q; \
            q = p; \
            p = other; \
            V *free_row = x; \
            x = y; \
            y = free_row; \
        } \
    }

enum { MANY_4 = 1, MANY_8 = 1, MANY_16 = 1, MANY_24 = 3, MANY_32 = 2, MANY_more = MOST };
#define FORMS(NAME, V, NV, N) GATHERED(NAME, V, NV) SOFTMAX(NAME, V, NV, N)
GATHERED(1, float, 1)
FORMS(4, v4, 1, 4)
FORMS(8, v8, 1, 8)
FORMS(16, v16, 1, 16)
FORMS(24, v8, 3, 8)
FORMS(32, v16, 2, 16)
FORMS(more, v16, nv, 16)

/* Floats of a pixel that hold so many classes; 0: too many. */
int64_t padded_classes(int64_t classes)
{
    static const int64_t sizes[] = {4, 8, 16, 24, 32};
    for (int i = 0; i < 5; i++)
        if (classes <= sizes[i]) return sizes[i];
    return classes <= MOST * WIDE ? (classes + WIDE - 1) / WIDE * WIDE : 0;
}

/* One thread's part of the inference. Returns -1 if there was no memory, in which case the others do its work. */
int32_t mean_field(Field *field)
{
    int64_t k = padded_classes(field->classes), width = field->lattice->width * k, wide = width + 2 * field->radius * k + 64;
    size_t size = (size_t)(2 * width + TAPS * wide + TAPS * (2 * field->radius + TAPS)) * sizeof(float);
    float *room = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!room) return -1;
    if (k == 4) field_4(field, room, 1);
    else if (k == 8) field_8(field, room, 1);
    else if (k == 16) field_16(field, room, 1);
    else if (k == 24) field_24(field, room, 1);
    else if (k == 32) field_32(field, room, 1);
    else field_more(field, room, (long)(k / WIDE));
    free(room);
    return 0;
}

/* One thread's part of filtering a map of `k` floats a pixel: 1, or as padded_classes says. */
void filter_map(Filter *filter, int64_t k)
{
    if (k == 1) filter_1(filter, 1);
    else if (k == 4) filter_4(filter, 1);
    else if (k == 8) filter_8(filter, 1);
    else if (k == 16) filter_16(filter, 1);
    else if (k == 24) filter_24(filter, 1);
    else if (k == 32) filter_32(filter, 1);
    else filter_more(filter, (long)(k / WIDE));
}
