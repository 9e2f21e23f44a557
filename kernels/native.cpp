// Block-sparse attention, one query tile at a time; built on the user's machine, see native.py.
//
// Queries lie across the lanes of vectors: scores are held as [keys][queries]. So keys and values
// are read where they lie, one number at a time for all lanes; the softmax needs no sum across
// lanes, and a tile of few keys costs what it has. What a tile of 64 queries needs stays in the L1
// and L2 caches. Every sum has a fixed order.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 4, COLUMNS = 4;
#elif defined(__AVX__)
constexpr int BYTES = 32, ROWS = 4, COLUMNS = 2;
#else
constexpr int BYTES = 16, ROWS = 4, COLUMNS = 4;
#endif
#define INLINE inline __attribute__((always_inline))

template <typename T> struct Lane;
template <> struct Lane<float> {
    typedef float vec __attribute__((vector_size(BYTES), may_alias));
    typedef int32_t whole __attribute__((vector_size(BYTES), may_alias));
};
template <> struct Lane<double> {
    typedef double vec __attribute__((vector_size(BYTES), may_alias));
    typedef int64_t whole __attribute__((vector_size(BYTES), may_alias));
};
template <typename T> using Vec = typename Lane<T>::vec;
template <typename T> constexpr int64_t LANES = BYTES / sizeof(T);

struct Strides {  // in numbers; the last axis is contiguous
    int64_t batch, head, token;
};

struct Problem {  // index [batch, heads, q_tiles, width], count [batch, heads, q_tiles]
    int64_t heads, dim, q_tiles, kv_tiles, q_tokens, kv_tokens, q_max, kv_max, width;
    double scale;
    const int32_t *index, *count, *q_offsets, *kv_offsets;
    Strides q, k, v, o, g, dq, dk, dv;  // o: the output; g: its gradient
};

bool tiled(const int32_t *offsets, int64_t tiles, int64_t tokens, int64_t most)
{
    if (tiles < 1 || offsets[0] != 0 || offsets[tiles] != tokens) return false;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t size = int64_t(offsets[i + 1]) - offsets[i];
        if (size < 0 || size > most) return false;
    }
    return true;
}

// Whether lists first to last stay within the tensors.
bool sound(const Problem &p, int64_t first, int64_t last)
{
    if (!tiled(p.q_offsets, p.q_tiles, p.q_tokens, p.q_max)) return false;
    if (!tiled(p.kv_offsets, p.kv_tiles, p.kv_tokens, p.kv_max)) return false;
    for (int64_t unit = first; unit < last; unit++) {
        if (p.count[unit] < 0 || p.count[unit] > p.width) return false;
        for (int64_t j = 0; j < p.count[unit]; j++) {
            const int64_t tile = p.index[unit * p.width + j];
            if (tile < 0 || tile >= p.kv_tiles) return false;
        }
    }
    return true;
}

template <typename T> int64_t whole_vectors(int64_t n)
{
    return (n + LANES<T> - 1) / LANES<T> * LANES<T>;
}

template <typename T> struct Room {  // aligned, and zeros
    std::unique_ptr<T, decltype(&std::free)> data;
    explicit Room(int64_t n) : data(nullptr, &std::free)
    {
        const size_t bytes = (n * sizeof(T) / 64 + 1) * 64;
        data.reset(static_cast<T *>(std::aligned_alloc(64, bytes)));
        if (data) std::memset(data.get(), 0, bytes);
    }
    operator T *() const { return data.get(); }
};

// e to the x; 0 where that is below the smallest normal number. NaN stays NaN.
INLINE Vec<float> exponential(Vec<float> x)
{
    typedef Lane<float>::whole whole;
    const float turn = 12582912.0f;  // 1.5 * 2^23: the last bits of a sum with it are the integer
    Vec<float> n = x * 1.44269504f + turn;
    const whole power = ((whole)n << 23) + 0x3f800000;
    n -= turn;
    const Vec<float> r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    Vec<float> y = r * 1.3981999507e-3f + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 0.5f;
    y = y * (r * r) + r + 1.0f;
    y *= (Vec<float>)power;
    return x < -87.0f ? Vec<float>{} : y;
}

INLINE Vec<double> exponential(Vec<double> x)
{
    for (int64_t i = 0; i < LANES<double>; i++) x[i] = std::exp(x[i]);
    return x;
}

enum Then { STORE, ADD, SCALE, WEIGHT, SLOPE };

template <typename T> struct Left {  // any strides
    const T *at;
    int64_t row, step;
};

// C = A B for a few rows and columns of vectors, held in registers. STORE: c = ab, and
// side = max(side, ab). ADD: c += ab. SCALE: c = c side + ab. WEIGHT: c = exp(ab - side).
// SLOPE: c = other (ab - side). side has a number for each column; other lies as C.
template <typename T, int rows, int columns, Then then>
INLINE void block(int64_t depth, Left<T> a, const T *b, int64_t b_step, T *c, int64_t c_row,
                  T *side, const T *other)
{
    typedef Vec<T> vec;
    vec sum[rows][columns];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < columns; j++) sum[i][j] = vec{};
    const T *from = a.at;
    for (int64_t p = 0; p < depth; p++, from += a.step, b += b_step) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const T x = from[i * a.row];
#pragma GCC unroll 8
            for (int j = 0; j < columns; j++) sum[i][j] += x * ((const vec *)b)[j];
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < columns; j++) {
        vec one{};
        if (then != ADD) one = ((const vec *)side)[j];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec &to = ((vec *)(c + i * c_row))[j];
            const vec x = sum[i][j];
            if (then == STORE) to = x, one = x > one ? x : one;
            if (then == ADD) to += x;
            if (then == SCALE) to = to * one + x;
            if (then == WEIGHT) to = exponential(x - one);
            if (then == SLOPE) to = ((const vec *)(other + i * c_row))[j] * (x - one);
        }
        if (then == STORE) ((vec *)side)[j] = one;
    }
}

template <typename T, int columns, Then then>
INLINE void strip(int64_t m, int64_t depth, Left<T> a, const T *b, int64_t b_step, T *c,
                  int64_t c_row, T *side, const T *other)
{
    int64_t i = 0;
    for (; i + ROWS <= m; i += ROWS)
        block<T, ROWS, columns, then>(depth, {a.at + i * a.row, a.row, a.step}, b, b_step,
                                      c + i * c_row, c_row, side, other + (other ? i * c_row : 0));
    for (; i < m; i++)
        block<T, 1, columns, then>(depth, {a.at + i * a.row, a.row, a.step}, b, b_step,
                                   c + i * c_row, c_row, side, other + (other ? i * c_row : 0));
}

// C = A B of any size: A [m, depth], B [depth, n], n a multiple of LANES.
template <typename T, Then then>
__attribute__((noinline)) void product(int64_t m, int64_t n, int64_t depth, Left<T> a, const T *b,
                                       int64_t b_step, T *c, int64_t c_row, T *side = nullptr,
                                       const T *other = nullptr)
{
    for (int64_t j = 0; j < n; j += COLUMNS * LANES<T>) {
        T *s = side ? side + j : nullptr;
        const T *t = other ? other + j : nullptr;
        switch (n - j < COLUMNS * LANES<T> ? (n - j) / LANES<T> : COLUMNS) {
        case 1: strip<T, 1, then>(m, depth, a, b + j, b_step, c + j, c_row, s, t); break;
        case 2: strip<T, 2, then>(m, depth, a, b + j, b_step, c + j, c_row, s, t); break;
#if defined(__AVX512F__) || !defined(__AVX__)
        case 3: strip<T, 3, then>(m, depth, a, b + j, b_step, c + j, c_row, s, t); break;
        case 4: strip<T, 4, then>(m, depth, a, b + j, b_step, c + j, c_row, s, t); break;
#endif
        }
    }
}

// x [rows, dim] times scale, turned: [dim][wide], zeros beyond the rows.
template <typename T>
void turn(const T *x, int64_t token, int64_t rows, int64_t dim, int64_t wide, T scale, T *to)
{
    for (int64_t d = 0; d < dim; d++) {
        for (int64_t r = 0; r < rows; r++) to[d * wide + r] = x[r * token + d] * scale;
        for (int64_t r = rows; r < wide; r++) to[d * wide + r] = 0;
    }
}

// Query tiles first to last, counted through tiles, heads and batch. lse: [batch, heads, tokens].
// Returns 0; -1 without memory; -2 for lists that are none.
template <typename T>
int attend(const Problem &p, const T *q, const T *k, const T *v, T *o, T *lse, int64_t first,
           int64_t last)
{
    typedef Vec<T> vec;
    if (!sound(p, first, last)) return -2;
    const int64_t dim = p.dim, most = whole_vectors<T>(p.q_max);
    const Room<T> queries(dim * most), out(dim * most), weight(p.kv_max * most);
    const Room<T> peak(most), shrink(most), total(most);
    if (!queries || !out || !weight || !peak || !shrink || !total) return -1;
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t tile = unit % p.q_tiles, pair = unit / p.q_tiles;
        const int64_t b = pair / p.heads, h = pair % p.heads, n = p.count[unit];
        const int64_t start = p.q_offsets[tile], rows = p.q_offsets[tile + 1] - start;
        const int64_t wide = whole_vectors<T>(rows);
        const T *kh = k + b * p.k.batch + h * p.k.head, *vh = v + b * p.v.batch + h * p.v.head;
        T *oh = o + b * p.o.batch + h * p.o.head + start * p.o.token;
        turn<T>(q + b * p.q.batch + h * p.q.head + start * p.q.token, p.q.token, rows, dim, wide,
                p.scale, queries);
        for (int64_t i = 0; i < dim * wide; i++) out[i] = 0;
        for (int64_t i = 0; i < wide; i++) peak[i] = -INFINITY, total[i] = 0;
        for (int64_t j = 0; j < n; j++) {
            const int64_t at = p.index[unit * p.width + j], key = p.kv_offsets[at];
            const int64_t keys = p.kv_offsets[at + 1] - key;
            for (int64_t i = 0; i < wide; i++) shrink[i] = peak[i];
            product<T, STORE>(keys, wide, dim, {kh + key * p.k.token, p.k.token, 1}, queries, wide,
                              weight, wide, peak);
            for (int64_t c = 0; c < wide; c += LANES<T>) {
                const vec top = *(vec *)(peak + c);
                const vec less = exponential(*(vec *)(shrink + c) - top);
                vec sum = *(vec *)(total + c) * less;
                for (int64_t i = 0; i < keys; i++) {
                    vec &w = *(vec *)(weight + i * wide + c);
                    w = exponential(w - top);
                    sum += w;
                }
                *(vec *)(total + c) = sum;
                *(vec *)(shrink + c) = less;
            }
            product<T, SCALE>(dim, wide, keys, {vh + key * p.v.token, 1, p.v.token}, weight, wide,
                              out, wide, shrink);
        }
        for (int64_t r = 0; r < rows; r++) {
            const T share = n ? 1 / total[r] : 0;
            for (int64_t d = 0; d < dim; d++) oh[r * p.o.token + d] = out[d * wide + r] * share;
            lse[pair * p.q_tokens + start + r] = n ? peak[r] + std::log(total[r]) : INFINITY;
        }
    }
    return 0;
}

// Gradients of q, k and v for heads first to last, counted through heads and batch. dk and dv are
// zeros before; their rows are whole vectors. Returns as attend.
template <typename T>
int gradients(const Problem &p, const T *g, const T *q, const T *k, const T *v, const T *o,
              const T *lse, T *dq, T *dk, T *dv, int64_t first, int64_t last)
{
    if (!sound(p, first * p.q_tiles, last * p.q_tiles)) return -2;
    const int64_t dim = p.dim, most = whole_vectors<T>(p.q_max), across = whole_vectors<T>(dim);
    const Room<T> q_wide(dim * most), g_wide(dim * most), dq_wide(dim * most);
    const Room<T> q_tall(across * most), g_tall(across * most), weight(p.kv_max * most);
    const Room<T> slope(p.kv_max * most), sum(most), delta(most);
    if (!q_wide || !g_wide || !dq_wide || !q_tall || !g_tall || !weight || !slope || !sum || !delta)
        return -1;
    const T scale = p.scale;
    for (int64_t pair = first; pair < last; pair++) {
        const int64_t b = pair / p.heads, h = pair % p.heads;
        const T *kh = k + b * p.k.batch + h * p.k.head, *vh = v + b * p.v.batch + h * p.v.head;
        T *dkh = dk + b * p.dk.batch + h * p.dk.head, *dvh = dv + b * p.dv.batch + h * p.dv.head;
        for (int64_t tile = 0; tile < p.q_tiles; tile++) {
            const int64_t start = p.q_offsets[tile], rows = p.q_offsets[tile + 1] - start;
            const int64_t unit = pair * p.q_tiles + tile, wide = whole_vectors<T>(rows);
            const T *qh = q + b * p.q.batch + h * p.q.head + start * p.q.token;
            const T *gh = g + b * p.g.batch + h * p.g.head + start * p.g.token;
            const T *oh = o + b * p.o.batch + h * p.o.head + start * p.o.token;
            T *dqh = dq + b * p.dq.batch + h * p.dq.head + start * p.dq.token;
            turn<T>(qh, p.q.token, rows, dim, wide, scale, q_wide);
            turn<T>(gh, p.g.token, rows, dim, wide, 1, g_wide);
            for (int64_t i = 0; i < dim * wide; i++) dq_wide[i] = 0;
            for (int64_t i = 0; i < wide; i++) sum[i] = INFINITY, delta[i] = 0;
            for (int64_t r = 0; r < rows; r++) {
                T dot = 0;
                for (int64_t d = 0; d < dim; d++) {
                    dot += gh[r * p.g.token + d] * oh[r * p.o.token + d];
                    q_tall[r * across + d] = qh[r * p.q.token + d] * scale;
                    g_tall[r * across + d] = gh[r * p.g.token + d];
                }
                delta[r] = dot;
                sum[r] = lse[pair * p.q_tokens + start + r];
            }
            for (int64_t j = 0; j < p.count[unit]; j++) {
                const int64_t at = p.index[unit * p.width + j], key = p.kv_offsets[at];
                const int64_t keys = p.kv_offsets[at + 1] - key;
                const T *kt = kh + key * p.k.token, *vt = vh + key * p.v.token;
                product<T, WEIGHT>(keys, wide, dim, {kt, p.k.token, 1}, q_wide, wide, weight, wide,
                                   sum);
                product<T, SLOPE>(keys, wide, dim, {vt, p.v.token, 1}, g_wide, wide, slope, wide,
                                  delta, weight);
                product<T, ADD>(dim, wide, keys, {kt, 1, p.k.token}, slope, wide, dq_wide, wide);
                product<T, ADD>(keys, across, rows, {weight, wide, 1}, g_tall, across,
                                dvh + key * p.dv.token, p.dv.token);
                product<T, ADD>(keys, across, rows, {slope, wide, 1}, q_tall, across,
                                dkh + key * p.dk.token, p.dk.token);
            }
            for (int64_t r = 0; r < rows; r++)
                for (int64_t d = 0; d < dim; d++)
                    dqh[r * p.dq.token + d] = dq_wide[d * wide + r] * scale;
        }
    }
    return 0;
}

}  // namespace

#define EXPORT(T)                                                                                  \
    extern "C" int attend_##T(const Problem *p, const T *q, const T *k, const T *v, T *o, T *lse,  \
                              int64_t first, int64_t last)                                         \
    {                                                                                              \
        return attend<T>(*p, q, k, v, o, lse, first, last);                                        \
    }                                                                                              \
    extern "C" int gradients_##T(const Problem *p, const T *g, const T *q, const T *k, const T *v, \
                                 const T *o, const T *lse, T *dq, T *dk, T *dv, int64_t first,     \
                                 int64_t last)                                                     \
    {                                                                                              \
        return gradients<T>(*p, g, q, k, v, o, lse, dq, dk, dv, first, last);                      \
    }

EXPORT(float)
EXPORT(double)
