// What disentangled attention and its gradient share: a block has 128 threads, and looks at as many keys or queries in turn.

struct Places {
    const u32* list;
    const float* keys;
    const float* queries;
    u32 middle;
    u32 rows;
};

struct Draw128 {
    const u32* keys;
    const u32* step;
    u32 k0;
    u32 k1;
    u32 limit;
    float kept;
};

// The row of the tables of query `i` and key `j`; one outside is noted and read as the last.
__device__ inline u32 place_of(Places places, u32 i, u32 j, u32* fault) {
    u32 row = places.list[places.middle + j - i];
    if (places.rows > 0 && row >= places.rows) {
        raise_index(fault, row, places.rows);
        row = places.rows - 1;
    }
    return row;
}

// The score of a query and a key, of which the first columns of their head are given, but for the scale.
__device__ inline float score_of(const act* query, const act* key, Places places, u64 place, u32 head) {
    float sum = 0.0f;
    for (u32 c = 0; c < head; c++) {
        sum = fmaf((float)query[c], (float)key[c], sum);
    }
    if (places.keys != 0) {
        float own = 0.0f;
        for (u32 c = 0; c < head; c++) {
            own = fmaf((float)query[c], places.keys[place + c], own);
        }
        sum += own;
    }
    if (places.queries != 0) {
        float own = 0.0f;
        for (u32 c = 0; c < head; c++) {
            own = fmaf((float)key[c], places.queries[place + c], own);
        }
        sum += own;
    }
    return sum;
}

// The factor of dropout of a query, by its row of all tokens, and a key of its sequence.
__device__ inline float factor_of(Draw128 draw, u32 h, u32 query, u32 j) {
    if (draw.keys == 0) {
        return 1.0f;
    }
    u64 at = 2 * (u64)query;
    Words words = philox(draw.k0, draw.k1, (h << 20) + j / 4, draw.keys[at + 1], draw.keys[at], draw.step[0]);
    return words.word[j % 4] < draw.limit ? 0.0f : draw.kept;
}

// Whether distances reach as far as the longest sequence.
__device__ inline bool reaches(u32 distances, u32 longest, u32* fault) {
    bool good = distances % 2 == 1 && distances / 2 + 1 >= longest;
    if (!good && threadIdx.x == 0) {
        raise_index(fault, longest, distances);
    }
    return good;
}
