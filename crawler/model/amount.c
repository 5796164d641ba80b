/* SPDX-License-Identifier: Apache-2.0 */
#include "crawler/model/amount.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

typedef unsigned __int128 u128;

static const uint64_t p10_64[] = {
    UINT64_C(1),
    UINT64_C(10),
    UINT64_C(100),
    UINT64_C(1000),
    UINT64_C(10000),
    UINT64_C(100000),
    UINT64_C(1000000),
    UINT64_C(10000000),
    UINT64_C(100000000),
    UINT64_C(1000000000),
    UINT64_C(10000000000),
    UINT64_C(100000000000),
    UINT64_C(1000000000000),
    UINT64_C(10000000000000),
    UINT64_C(100000000000000),
    UINT64_C(1000000000000000),
    UINT64_C(10000000000000000),
    UINT64_C(100000000000000000),
    UINT64_C(1000000000000000000),
    UINT64_C(10000000000000000000),
};

static u128 p10(unsigned n)
{
    assert(n <= AMOUNT_DIGITS_MAX);
    return n <= 19 ? (u128)p10_64[n] : (u128)p10_64[19] * p10_64[n - 19];
}

/* Of 0: one. */
static unsigned digits_u64(uint64_t n)
{
    /* log10(2) is 1233 / 4096, near enough for 64 bits: the digits, or one too few. */
    unsigned guess = (unsigned)(64 - __builtin_clzll(n | 1)) * 1233 >> 12;

    return guess + (n >= p10_64[guess] || guess == 0);
}

/* A float32 taken apart: value = m * 2^e with m of 24 bits; `even` and `edge` (a power of two,
 * below which numbers lie twice as dense) decide which decimals read back to it. */
typedef struct Float32 {
    uint32_t m;
    int e;
} Float32;

static bool float32_split(double value, Float32 *ret)
{
    float f = (float)value;
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    *ret = (Float32){
        .m = (bits & UINT32_C(0x7fffff)) | UINT32_C(0x800000),
        .e = (int)((bits >> 23) & 0xff) - 150,
    };
    /* Out of these bounds (below 1e-11, above 1e19) the products below leave 128 bits; prices do
     * not. */
    return ret->e >= -63 && ret->e <= 40;
}

/* Whether the decimal n / 10^k lies within half a unit of the float32's place, the unit divided by
 * 2^finer: finer 0 asks "does it read back as this float32", finer 29 "as this float32 widened to
 * double". Exact, in integers. */
static bool float32_reads_back(const Float32 *f, uint64_t n, unsigned k, unsigned finer)
{
    u128 a, b, half, distance;
    bool below;

    if (f->e < 0) {
        a = (u128)n << -f->e;
        b = (u128)f->m * p10(k);
        half = p10(k);
    } else {
        a = n;
        b = ((u128)f->m << f->e) * p10(k);
        half = p10(k) << f->e;
    }
    below = a < b;
    distance = below ? b - a : a - b;
    /* Half a place is half / 2^(finer + 1); under a power of two half of that again. */
    finer += below && f->m == UINT32_C(0x800000) ? 2 : 1;
    if (distance < half >> finer)
        return true;
    if (distance > half >> finer)
        return false;
    /* Exactly half way reads back to the even one; with bits lost in the shift it lies inside. */
    return (half & (((u128)1 << finer) - 1)) != 0 || finer > 28 || f->m % 2 == 0;
}

static const double p10_double[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* n / 10^k without its last `drop` digits, half to even. */
static void round_to(uint64_t n, unsigned k, unsigned drop, uint64_t *ret_n, unsigned *ret_k)
{
    uint64_t unit = p10_64[drop], rest = n % unit;

    n /= unit;
    if (rest > unit / 2 || (rest == unit / 2 && n % 2 == 1))
        n++;
    *ret_n = drop <= k ? n : n * p10_64[drop - k];
    *ret_k = drop <= k ? k - drop : 0;
}

#define DOUBLE_EXACT (UINT64_C(1) << 53)

/* The float32 that n / 10^k reads as. False: not found this way. */
static bool float32_of(uint64_t n, unsigned k, Float32 *ret)
{
    double value;
    uint64_t bits;

    if (n >= DOUBLE_EXACT || k >= ELEMENTS(p10_double))
        return false;
    /* Two exact numbers: the quotient is the nearest double, and its float32 the nearest float32,
     * unless the double lies in the very middle of two. */
    value = (double)n / p10_double[k];
    memcpy(&bits, &value, sizeof(bits));
    return (bits & UINT64_C(0x1fffffff)) != UINT64_C(0x10000000) && float32_split(value, ret);
}

/* n / 10^k with n of more than six digits: where it is a float32 widened to double, the shortest
 * decimal that reads back to that float32. Six digits always survive a float32, nine always
 * suffice.
 */
static void float32_shorten(uint64_t *n, unsigned *k, unsigned n_digits)
{
    uint64_t short_n;
    unsigned places;
    Float32 f;

    if (n_digits <= 6 || *k >= ELEMENTS(p10_double))
        return;
    /* What prices are: six digits at most, of which the text is the float32. */
    round_to(*n, *k, n_digits - 6, &short_n, &places);
    if (float32_of(short_n, places, &f) && float32_reads_back(&f, *n, *k, 29)) {
        *n = short_n;
        *k = places;
        return;
    }
    /* The quotient is right to one unit of a double, which is enough to find the float32 if there
     * is one; that it is one is then shown exactly. */
    if (!float32_split((double)*n / p10_double[*k], &f) || !float32_reads_back(&f, *n, *k, 29))
        return;

    for (unsigned digits = 6; digits <= 9 && digits < n_digits; digits++) {
        round_to(*n, *k, n_digits - digits, &short_n, &places);
        if (float32_reads_back(&f, short_n, places, 0)) {
            *n = short_n;
            *k = places;
            return;
        }
    }
}

/* Number text as read: all significant digits (38 at most, `sticky` says that more were not zero),
 * how many, and the power of ten. */
typedef struct Digits {
    u128 value;
    unsigned n; /* significant digits, leading zeros not counted */
    int places; /* value / 10^places; negative after a positive exponent */
    bool sticky;
    bool negative;
} Digits;

static int read_exponent(const char *p, const char *end, int *ret)
{
    bool negative = false;
    int exponent = 0;

    if (p < end && (*p == '-' || *p == '+'))
        negative = *p++ == '-';
    if (p == end)
        return -EINVAL;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9')
            return -EINVAL;
        if (exponent < 100000)
            exponent = exponent * 10 + (*p - '0');
    }
    *ret = negative ? -exponent : exponent;
    return 0;
}

/* A comma stands after one to three digits (`group` is where they begin) and before exactly three.
 */
static bool comma_is_right(const char *p, const char *group, const char *end)
{
    if (p == group || p - group > 3)
        return false;
    for (unsigned i = 1; i <= 3; i++)
        if (p + i >= end || p[i] < '0' || p[i] > '9')
            return false;
    return p + 4 >= end || p[4] == ',' || p[4] == '.' || p[4] == 'e' || p[4] == 'E';
}

/* Eight bytes of text as one number, the first of them lowest. */
static inline uint64_t load_eight(const char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}

/* Zero in the bytes that are digits: those are 3 in the high half, and still are when 6 is added.
 */
static inline uint64_t others_than_digits(uint64_t word)
{
    const uint64_t high_halves = UINT64_C(0xf0f0f0f0f0f0f0f0);

    return ((word & high_halves) | ((word + UINT64_C(0x0606060606060606)) & high_halves) >> 4) ^
           UINT64_C(0x3333333333333333);
}

/* The value of eight digits, or bytes of zero. Neighbours are joined: digits to pairs, pairs to
 * fours, fours to the eight. */
static inline uint64_t join_eight(uint64_t word)
{
    word &= UINT64_C(0x0f0f0f0f0f0f0f0f);
    word = word * 10 + (word >> 8);
    return ((word & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
            (word >> 16 & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001)) >>
           32;
}

/* Digits from `p` on, behind those that `value` has: where they end. `text` is where all begins. */
static inline const char *read_run(const char *text, const char *p, const char *end,
                                   uint64_t *value)
{
    unsigned n, c;

    for (; end - p >= 8; p += 8) {
        uint64_t word = load_eight(p), others = others_than_digits(word);

        if (others != 0) {
            n = (unsigned)__builtin_ctzll(others) / 8;
            if (n > 0) /* zeros in front, what follows the digits is gone */
                *value = *value * p10_64[n] + join_eight(word << (64 - 8 * n));
            return p + n;
        }
        *value = *value * p10_64[8] + join_eight(word);
    }
    /* The rest together with what was read before it, which is taken out again. */
    n = (unsigned)(end - p);
    if (n > 0 && end - text >= 8) {
        uint64_t rest = load_eight(end - 8) >> (64 - 8 * n) << (64 - 8 * n);

        if (others_than_digits(rest) >> (64 - 8 * n) == 0) {
            *value = *value * p10_64[n] + join_eight(rest);
            return end;
        }
    }
    for (; p < end && (c = (unsigned char)*p - (unsigned)'0') <= 9; p++)
        *value = *value * 10 + c;
    return p;
}

/* What nearly every number is: nineteen digits at most, and perhaps a point among them. False: it
 * takes the long way, which says what it is. */
static bool read_plain(const char *text, size_t size, Digits *ret)
{
    const char *p = text, *end = text + size, *from;
    Digits d = {0};
    uint64_t value = 0;

    if (size > 21)
        return false;
    if (p < end && *p == '-') {
        d.negative = true;
        p++;
    }
    from = p;
    p = read_run(text, p, end, &value);
    d.n = (unsigned)(p - from);
    if (d.n == 0)
        return false;
    if (p < end && *p == '.') {
        from = ++p;
        p = read_run(text, p, end, &value);
        if (p == from)
            return false;
        d.places = (int)(p - from);
        d.n += (unsigned)d.places;
    }
    if (p != end || d.n > 19)
        return false;
    d.n = digits_u64(value);
    d.value = value;
    *ret = d;
    return true;
}

static int read_digits(const char *text, size_t size, unsigned flags, Digits *ret)
{
    const char *p = text, *end = text + size, *group;
    Digits d = {0};
    uint64_t low = 0;
    bool point = false, any = false;
    int exponent = 0, r;

    if (p < end && (*p == '-' || (*p == '+' && (flags & AMOUNT_SIGN))))
        d.negative = *p++ == '-';

    for (group = p; p < end; p++) {
        unsigned c = (unsigned char)*p - (unsigned)'0';

        if (c <= 9) {
            any = true;
            d.places += point;
            if (d.n == 0 && c == 0)
                continue;
            if (d.n < 19)
                low = low * 10 + c;
            else if (d.n < AMOUNT_DIGITS_MAX)
                d.value = (d.n == 19 ? (u128)low : d.value) * 10 + c;
            else {
                d.sticky |= c != 0;
                d.places--;
                d.n--;
            }
            d.n++;
        } else if (*p == '.' && !point && any && p + 1 < end)
            point = true;
        else if (*p == ',' && (flags & AMOUNT_THOUSANDS) && !point && comma_is_right(p, group, end))
            group = p + 1;
        else
            break;
    }
    if (!any || (p > text && p[-1] == '.'))
        return -EINVAL;
    if (p < end) {
        if (*p != 'e' && *p != 'E')
            return -EINVAL;
        r = read_exponent(p + 1, end, &exponent);
        if (r < 0)
            return r;
        d.places -= exponent;
    }
    if (d.n <= 19)
        d.value = low;
    *ret = d;
    return 0;
}

/* Drops `n` decimal places, half to even. */
static u128 drop_places(u128 value, unsigned n, bool sticky)
{
    u128 unit, rest, half;

    if (n > AMOUNT_DIGITS_MAX)
        return 0;
    unit = p10(n);
    rest = value % unit;
    half = unit / 2;
    value /= unit;
    if (rest > half || (rest == half && (sticky || value % 2 == 1)))
        value++;
    return value;
}

static void strip_zeros(u128 *value, int *places)
{
    if (*value >> 64) {
        while (*places > 0 && *value % 10 == 0) {
            *value /= 10;
            (*places)--;
        }
    } else {
        uint64_t low = (uint64_t)*value;

        while (*places > 0 && low % 10 == 0) {
            low /= 10;
            (*places)--;
        }
        *value = low;
    }
}

int amount_parse(const char *text, size_t size, unsigned flags, unsigned scale_max, Amount *ret)
{
    Digits d;
    Amount amount;
    int r;

    assert(ret && scale_max <= AMOUNT_SCALE_MAX);

    r = read_plain(text, size, &d) ? 0 : read_digits(text, size, flags, &d);
    if (r < 0)
        return r;
    if (d.value == 0) {
        *ret = (Amount){.present = true};
        return 0;
    }

    if ((flags & AMOUNT_FLOAT32) && d.n <= 19 && d.places >= 0) {
        uint64_t n = (uint64_t)d.value;
        unsigned k = (unsigned)d.places;

        float32_shorten(&n, &k, d.n);
        d.value = n;
        d.places = (int)k;
    }

    strip_zeros(&d.value, &d.places);
    if (d.places < 0) {
        if (-d.places > AMOUNT_DIGITS_MAX ||
            d.value > (p10(AMOUNT_DIGITS_MAX) - 1) / p10((unsigned)-d.places))
            return -ERANGE;
        d.value *= p10((unsigned)-d.places);
        d.places = 0;
    }
    if (d.places > (int)scale_max || d.sticky) {
        if (!(flags & AMOUNT_BINARY) || d.n < 16)
            return -ERANGE;
        if (d.places > (int)scale_max) {
            d.value = drop_places(d.value, (unsigned)d.places - scale_max, d.sticky);
            d.places = (int)scale_max;
            strip_zeros(&d.value, &d.places);
        }
    }
    if (d.value == 0)
        d.places = 0;

    amount = (Amount){
        .mantissa = d.negative ? -(AmountMantissa)d.value : (AmountMantissa)d.value,
        .scale = (uint8_t)d.places,
        .present = true,
    };
    if (!amount_fits(&amount, scale_max))
        return -ERANGE;
    *ret = amount;
    return 0;
}

int amount_from_text(const char *text, Amount *ret)
{
    return amount_parse(text, strlen(text), 0, AMOUNT_SCALE_MAX, ret);
}

Amount amount_from_i64(int64_t value)
{
    return (Amount){.mantissa = value, .present = true};
}

int amount_shift(const Amount *amount, int exponent, unsigned scale_max, Amount *ret)
{
    u128 value;
    int places;
    Amount shifted;

    if (!amount->present) {
        *ret = AMOUNT_ABSENT;
        return 0;
    }
    value = amount->mantissa < 0 ? -(u128)amount->mantissa : (u128)amount->mantissa;
    places = (int)amount->scale - exponent;
    if (value == 0)
        places = 0;
    if (places < 0) {
        if (-places > AMOUNT_DIGITS_MAX ||
            value > (p10(AMOUNT_DIGITS_MAX) - 1) / p10((unsigned)-places))
            return -ERANGE;
        value *= p10((unsigned)-places);
        places = 0;
    }
    strip_zeros(&value, &places);
    if (places > (int)scale_max)
        return -ERANGE;
    shifted = (Amount){
        .mantissa = amount->mantissa < 0 ? -(AmountMantissa)value : (AmountMantissa)value,
        .scale = (uint8_t)places,
        .present = true,
    };
    if (!amount_fits(&shifted, scale_max))
        return -ERANGE;
    *ret = shifted;
    return 0;
}

int amount_subtract(const Amount *a, const Amount *b, Amount *ret)
{
    unsigned scale = MAX_OF(a->scale, b->scale);
    AmountMantissa x, y, difference;
    u128 value;
    int places = (int)scale;

    assert(a->present && b->present);

    if (__builtin_mul_overflow(a->mantissa, (AmountMantissa)p10(scale - a->scale), &x) ||
        __builtin_mul_overflow(b->mantissa, (AmountMantissa)p10(scale - b->scale), &y) ||
        __builtin_sub_overflow(x, y, &difference))
        return -ERANGE;
    value = difference < 0 ? -(u128)difference : (u128)difference;
    if (value >= p10(AMOUNT_DIGITS_MAX))
        return -ERANGE;
    if (value == 0)
        places = 0;
    strip_zeros(&value, &places);
    *ret = (Amount){
        .mantissa = difference < 0 ? -(AmountMantissa)value : (AmountMantissa)value,
        .scale = (uint8_t)places,
        .present = true,
    };
    return 0;
}

static size_t small_text_size(uint64_t value, unsigned scale)
{
    unsigned digits = digits_u64(value);

    return scale > 0 ? MAX_OF(digits, scale + 1) + 1 : digits;
}

/* The last `n` digits of the value, which end before `end`: what is left of it. */
static uint64_t put_digits(char *end, uint64_t value, size_t n)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233"
        "34353637383940414243444546474849505152535455565758596061626364656667"
        "6869707172737475767778798081828384858687888990919293949596979899";

    for (; n >= 2; n -= 2, value /= 100) {
        end -= 2;
        memcpy(end, &pairs[value % 100 * 2], 2);
    }
    if (n > 0) {
        end[-1] = (char)('0' + value % 10);
        value /= 10;
    }
    return value;
}

static size_t format_small(uint64_t value, unsigned scale, char *buf)
{
    size_t size = small_text_size(value, scale), whole = size;

    if (scale > 0) {
        value = put_digits(buf + size, value, scale);
        whole = size - scale - 1;
        buf[whole] = '.';
    }
    (void)put_digits(buf + whole, value, whole);
    return size;
}

size_t amount_text_size(const Amount *amount)
{
    u128 value = amount->mantissa < 0 ? -(u128)amount->mantissa : (u128)amount->mantissa;
    char text[AMOUNT_TEXT_MAX];

    return value >> 64 ? amount_format(amount, text)
                       : small_text_size((uint64_t)value, amount->scale) + (amount->mantissa < 0);
}

/* A value of more than 64 bits. */
static size_t format_wide(u128 value, unsigned scale, char *buf)
{
    char digits[AMOUNT_TEXT_MAX], *p = digits + sizeof(digits);
    unsigned left = scale;
    size_t n;
    uint64_t low;

    /* From the end, the point put in on the way; 64 bits at a time, as dividing 128 is slow. */
    while (value >> 64) {
        *--p = (char)('0' + (int)(value % 10));
        value /= 10;
        if (left > 0 && --left == 0)
            *--p = '.';
    }
    low = (uint64_t)value;
    while (low > 0 || left > 0) {
        *--p = (char)('0' + (int)(low % 10));
        low /= 10;
        if (left > 0 && --left == 0)
            *--p = '.';
    }
    if (p == digits + sizeof(digits) || *p == '.')
        *--p = '0';
    n = (size_t)(digits + sizeof(digits) - p);
    memcpy(buf, p, n);
    return n;
}

size_t amount_format(const Amount *amount, char buf[static AMOUNT_TEXT_MAX])
{
    u128 value = amount->mantissa < 0 ? -(u128)amount->mantissa : (u128)amount->mantissa;
    size_t at = 0;

    if (amount->mantissa < 0)
        buf[at++] = '-';
    return at + (value >> 64 ? format_wide(value, amount->scale, buf + at)
                             : format_small((uint64_t)value, amount->scale, buf + at));
}

bool amount_equal(const Amount *a, const Amount *b)
{
    return a->present == b->present && a->scale == b->scale && a->mantissa == b->mantissa;
}

bool amount_fits(const Amount *amount, unsigned scale_max)
{
    u128 value = amount->mantissa < 0 ? -(u128)amount->mantissa : (u128)amount->mantissa;

    if (amount->scale > scale_max)
        return false;
    if (!(value >> 64))
        return true; /* both bounds are far above */
    if (scale_max == AMOUNT_SCALE_NUMERIC)
        return value < p10(AMOUNT_INTEGER_DIGITS_NUMERIC + amount->scale);
    return value < p10(AMOUNT_DIGITS_MAX);
}

/* Integer part and fraction scaled to AMOUNT_SCALE_MAX, so that neither leaves 128 bits. */
static void take_apart(const Amount *a, u128 *ret_whole, u128 *ret_fraction)
{
    u128 value = a->mantissa < 0 ? -(u128)a->mantissa : (u128)a->mantissa;

    *ret_whole = value / p10(a->scale);
    *ret_fraction = value % p10(a->scale) * p10(AMOUNT_SCALE_MAX - a->scale);
}

int amount_compare(const Amount *a, const Amount *b)
{
    u128 whole_a, fraction_a, whole_b, fraction_b;
    int sign = a->mantissa < 0 ? -1 : 1;

    assert(a->present && b->present);

    if ((a->mantissa < 0) != (b->mantissa < 0))
        return sign;
    take_apart(a, &whole_a, &fraction_a);
    take_apart(b, &whole_b, &fraction_b);
    if (whole_a != whole_b)
        return whole_a < whole_b ? -sign : sign;
    if (fraction_a != fraction_b)
        return fraction_a < fraction_b ? -sign : sign;
    return 0;
}

bool amount_is_zero(const Amount *amount)
{
    return amount->present && amount->mantissa == 0;
}

bool amount_is_negative(const Amount *amount)
{
    return amount->mantissa < 0;
}
