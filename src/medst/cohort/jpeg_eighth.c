/* The mean of every 8 x 8 block of a grey baseline JPEG, without its details.
 *
 * That is the picture at an eighth of its size, to the bit as libjpeg's scaled decoding gives it. Unusual here: the details
 * are not decoded but skipped, several of them by one look into a table, for their values are not wanted. Everything that is
 * not a grey baseline JPEG is left to others.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DONE = 0, NOT_FOR_US = 1, DAMAGED = 2 };
enum { LOOK = 12, LAST = 63 };

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits; /* the next ones first, from the highest bit on */
    int count;     /* of them that are there; fewer than 0: read beyond the end */
    int marker;    /* whether a marker was met, after which zeros are read */
} Reader;

/* What to do for the bits ahead: skip so many, advance so many coefficients, end the block or not; if it is known. */
typedef struct {
    uint8_t skip, advance, ends, known;
} Step;

typedef struct {
    int there;
    uint8_t length[65536], symbol[65536]; /* by the next 16 bits; length 0: no such code */
    Step one[65536], many[1 << LOOK];
} Table;

static int build(Table *table, const uint8_t counts[16], const uint8_t *symbols, int total, int alternating) {
    memset(table, 0, sizeof *table);
    uint32_t code = 0;
    int place = 0;
    for (int length = 1; length <= 16; length++, code <<= 1)
        for (int i = 0; i < counts[length - 1]; i++, code++, place++) {
            uint32_t first = code << (16 - length), span = 1u << (16 - length);
            if (place >= total || first + span > 65536) return DAMAGED;
            memset(table->length + first, length, span);
            memset(table->symbol + first, symbols[place], span);
        }
    table->there = 1;
    if (!alternating) return DONE;
    for (uint32_t look = 0; look < 65536; look++) {
        int symbol = table->symbol[look], size = symbol & 15, run = symbol >> 4;
        if (!table->length[look]) continue;
        Step *step = &table->one[look];
        step->known = 1;
        step->skip = (uint8_t)(table->length[look] + size);
        step->ends = (uint8_t)(!size && run != 15);
        step->advance = (uint8_t)(step->ends ? 0 : run + 1);
    }
    for (uint32_t look = 0; look < 1u << LOOK; look++) {
        Step many = {0, 0, 0, 0};
        for (int used = 0; used < LOOK;) {
            uint32_t rest = (look << (16 - LOOK + used)) & 65535;
            Step one = table->one[rest];
            /* The code itself must lie within what was looked at; its value may lie beyond. */
            if (!one.known || used + table->length[rest] > LOOK || many.advance + one.advance > LAST) break;
            used += one.skip;
            many.skip = (uint8_t)used, many.advance = (uint8_t)(many.advance + one.advance), many.known = 1;
            if ((many.ends = one.ends)) break;
        }
        table->many[look] = many;
    }
    return DONE;
}

static inline void refill(Reader *reader) {
    if (reader->marker) return;
    if (reader->end - reader->next >= 8) {
        uint64_t word;
        memcpy(&word, reader->next, 8);
        word = __builtin_bswap64(word);
        if (!((~word - 0x0101010101010101ull) & word & 0x8080808080808080ull)) { /* no byte is 255 */
            int bytes = (64 - reader->count) >> 3;
            reader->bits |= word >> reader->count;
            reader->next += bytes;
            reader->count += bytes * 8;
            if (reader->count < 64) reader->bits &= ~0ull << (64 - reader->count);
            return;
        }
    }
    while (reader->count <= 56) {
        if (reader->next >= reader->end) {
            reader->marker = 1;
            return; /* the rest is zeros, and count tells when they are used */
        }
        uint64_t byte = *reader->next;
        if (byte == 255) {
            if (reader->next + 1 < reader->end && reader->next[1] == 0) reader->next++;
            else {
                reader->marker = 1;
                return;
            }
        }
        reader->next++;
        reader->bits |= byte << (56 - reader->count);
        reader->count += 8;
    }
}

static inline void skip(Reader *reader, int count) {
    reader->bits <<= count;
    reader->count -= count;
}

static int restart(Reader *reader) {
    while (reader->next + 1 < reader->end) {
        if (reader->next[0] == 255 && reader->next[1] >= 0xD0 && reader->next[1] <= 0xD7) {
            reader->next += 2;
            reader->bits = 0, reader->count = 0, reader->marker = 0;
            return DONE;
        }
        if (reader->next[0] == 255 && reader->next[1] != 0 && reader->next[1] != 255) return DAMAGED;
        reader->next++;
    }
    return DAMAGED;
}

static int scan(Reader *reader, const Table *dc, const Table *ac, int quantum, int interval, uint8_t *out, size_t blocks) {
    int64_t mean = 0;
    int left = interval;
    for (size_t block = 0; block < blocks; block++) {
        if (interval && left-- == 0) {
            if (restart(reader)) return DAMAGED;
            mean = 0, left = interval - 1;
        }
        if (reader->count < 32) refill(reader);
        uint32_t look = (uint32_t)(reader->bits >> 48);
        int length = dc->length[look], size = dc->symbol[look];
        if (!length || size > 11) return DAMAGED;
        skip(reader, length);
        if (size) {
            int value = (int)(reader->bits >> (64 - size));
            if (value < 1 << (size - 1)) value -= (1 << size) - 1;
            mean += value;
            skip(reader, size);
        }
        for (int k = 0; k < LAST;) {
            if (reader->count < 32) refill(reader);
            Step step = ac->many[reader->bits >> (64 - LOOK)];
            if (!step.known || k + step.advance > LAST || (k + step.advance == LAST && step.ends)) {
                step = ac->one[reader->bits >> 48];
                if (!step.known) return DAMAGED;
            }
            skip(reader, step.skip);
            k += step.advance;
            if (step.ends) break;
            if (k > LAST) return DAMAGED;
        }
        if (reader->count < 0) return DAMAGED;
        int64_t pixel = ((mean * quantum + 4) >> 3) + 128;
        out[block] = (uint8_t)(pixel < 0 ? 0 : pixel > 255 ? 255 : pixel);
    }
    return DONE;
}

/* Write ceil(height / 8) x ceil(width / 8) pixels to out; height and width must be those of the file. */
int medst_jpeg_eighth(const uint8_t *data, size_t size, int height, int width, uint8_t *out) {
    const uint8_t *end = data + size, *at = data + 2;
    int quanta[4] = {0, 0, 0, 0}, which = -1, interval = 0, result = NOT_FOR_US;
    if (size < 4 || data[0] != 255 || data[1] != 0xD8) return NOT_FOR_US;
    Table *tables = calloc(8, sizeof(Table)); /* four for means, four for details */
    if (!tables) return NOT_FOR_US;
    while (end - at >= 4 && at[0] == 255) {
        int marker = at[1];
        if (marker == 255) {
            at++;
            continue;
        }
        size_t length = (size_t)at[2] << 8 | at[3];
        const uint8_t *part = at + 4, *after = at + 2 + length;
        if (length < 2 || (size_t)(end - at) < 2 + length) break;
        if (marker == 0xDB) {
            while (part < after) {
                int wide = part[0] >> 4, id = part[0] & 15;
                size_t bytes = 1 + 64 * (size_t)(wide ? 2 : 1);
                if (id > 3 || wide > 1 || (size_t)(after - part) < bytes) goto give_up;
                quanta[id] = wide ? part[1] << 8 | part[2] : part[1];
                part += bytes;
            }
        } else if (marker == 0xC4) {
            while (part < after) {
                if (after - part < 17 || (part[0] & 15) > 3 || part[0] >> 4 > 1) goto give_up;
                int kind = part[0] >> 4, total = 0;
                Table *table = &tables[kind * 4 + (part[0] & 15)];
                for (int i = 0; i < 16; i++) total += part[1 + i];
                if (after - part < 17 + total || total > 256) goto give_up;
                if (build(table, part + 1, part + 17, total, kind)) goto give_up;
                part += 17 + total;
            }
        } else if (marker == 0xC0 || marker == 0xC1) {
            if (length < 11 || part[0] != 8 || part[5] != 1) goto give_up; /* 8 bits, one component */
            if ((part[1] << 8 | part[2]) != height || (part[3] << 8 | part[4]) != width || part[8] > 3) goto give_up;
            which = part[8];
        } else if (marker == 0xDD) {
            if (length < 4) goto give_up;
            interval = part[0] << 8 | part[1];
        } else if (marker == 0xDA) {
            if (length < 8 || which < 0 || part[0] != 1) goto give_up;
            int dc = part[2] >> 4, ac = part[2] & 15;
            if (dc > 3 || ac > 3 || !tables[dc].there || !tables[4 + ac].there || !quanta[which]) goto give_up;
            Reader reader = {after, end, 0, 0, 0};
            size_t blocks = (size_t)((height + 7) / 8) * (size_t)((width + 7) / 8);
            result = scan(&reader, &tables[dc], &tables[4 + ac], quanta[which], interval, out, blocks);
            break;
        } else if (marker >= 0xC2 && marker <= 0xCF && marker != 0xC8) {
            break; /* progressive, lossless, arithmetic */
        }
        at = after;
    }
give_up:
    free(tables);
    return result;
}
