__device__ inline double second_kept(const u32* step, double decay, u32 since) {
    double t = (double)(step[0] > since ? step[0] - since : 0) + 1.0;
    return 1.0 - pow(t, -decay);
}

__device__ inline float mixed(float moment, double mean, double kept) {
    return moment * (float)kept + (float)mean * (float)(1.0 - kept);
}

// A block a row: the moment of the row.
extern "C" __global__ void adafactor_rows(const float* g, float* moments, const u32* step, const float* factor, u32 columns, float eps, double decay,
                                          u32 since) {
    __shared__ double slots[32];
    const float* own = g + (u64)blockIdx.x * columns;
    float scale = factor[0];
    double sum = 0.0;
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x) {
        float x = own[c] * scale;
        sum += (double)(x * x + eps);
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        moments[blockIdx.x] = mixed(moments[blockIdx.x], sum / (double)columns, second_kept(step, decay, since));
    }
}

// A block a matrix: the mean of its rows' moments.
extern "C" __global__ void adafactor_means(const float* moments, float* means, u32 rows) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 r = threadIdx.x; r < rows; r += blockDim.x) {
        sum += (double)moments[(u64)blockIdx.x * rows + r];
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        means[blockIdx.x] = (float)(sum / (double)rows);
    }
}

// A block of 256 threads takes 32 columns of a matrix: eight threads a column, whose sums are added in order.
extern "C" __global__ void adafactor_columns(const float* g, float* moments, const u32* step, const float* factor, u32 rows, u32 columns, float eps,
                                             double decay, u32 since) {
    __shared__ double slots[256];
    u32 strips = (columns + 31) / 32, matrix = blockIdx.x / strips;
    u32 c = blockIdx.x % strips * 32 + threadIdx.x % 32;
    const float* own = g + (u64)matrix * rows * columns;
    float scale = factor[0];
    double sum = 0.0;
    for (u32 r = threadIdx.x / 32; c < columns && r < rows; r += 8) {
        float x = own[(u64)r * columns + c] * scale;
        sum += (double)(x * x + eps);
    }
    slots[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < 32 && c < columns) {
        for (u32 part = 1; part < 8; part++) {
            sum += slots[part * 32 + threadIdx.x];
        }
        u64 at = (u64)matrix * columns + c;
        moments[at] = mixed(moments[at], sum / (double)rows, second_kept(step, decay, since));
    }
}

__device__ inline float row_factor(const float* row_moments, const float* means, u32 row, u32 rows) {
    return row_moments == 0 ? 1.0f : 1.0f / sqrtf(row_moments[row] / means[row / rows]);
}

// A block a row: the sums of the squares of its update and of the row itself.
extern "C" __global__ void adafactor_sums(const float* p, const float* g, const float* row_moments, const float* column_moments, const float* means,
                                          const float* factor, double* sums, u32 rows, u32 columns) {
    __shared__ double slots[32];
    u32 row = blockIdx.x;
    u64 at = (u64)row * columns;
    const float* of_columns = column_moments + (u64)(row / rows) * columns;
    float own = row_factor(row_moments, means, row, rows) * factor[0];
    double updates = 0.0, numbers = 0.0;
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x) {
        float u = g[at + c] * own * (1.0f / sqrtf(of_columns[c]));
        updates += (double)(u * u);
        numbers += (double)(p[at + c] * p[at + c]);
    }
    updates = block_sum(updates, slots);
    numbers = block_sum(numbers, slots);
    if (threadIdx.x == 0) {
        sums[2 * (u64)row] = updates;
        sums[2 * (u64)row + 1] = numbers;
    }
}

// One block: what stays of a weight, and the rate of its update.
extern "C" __global__ void adafactor_numbers(const double* sums, float* numbers, const float* lr, u64 n, u32 rows, double clip, double scale,
                                             double weight_decay) {
    __shared__ double slots[32];
    double updates = 0.0, own = 0.0;
    for (u32 r = threadIdx.x; r < rows; r += blockDim.x) {
        updates += sums[2 * (u64)r];
        own += sums[2 * (u64)r + 1];
    }
    updates = sqrt(block_sum(updates, slots) / (double)n);
    own = sqrt(block_sum(own, slots) / (double)n);
    if (threadIdx.x == 0) {
        double rate = (double)lr[0] * (scale < 0.0 ? 1.0 : scale > own ? scale : own), over = updates / clip;
        numbers[0] = (float)(1.0 - rate * weight_decay);
        numbers[1] = (float)(rate / (over > 1.0 ? over : 1.0));
    }
}

// A block a row.
extern "C" __global__ void adafactor_apply(float* p, const float* g, const float* row_moments, const float* column_moments, const float* means,
                                           const float* factor, const float* numbers, u32 rows, u32 columns) {
    u32 row = blockIdx.x;
    u64 at = (u64)row * columns;
    const float* of_columns = column_moments + (u64)(row / rows) * columns;
    float own = row_factor(row_moments, means, row, rows) * factor[0], keep = numbers[0], rate = numbers[1];
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x) {
        p[at + c] = p[at + c] * keep - rate * (g[at + c] * own * (1.0f / sqrtf(of_columns[c])));
    }
}
