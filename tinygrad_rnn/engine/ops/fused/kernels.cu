// RNN, LSTM and GRU over a whole sequence on a GPU, the loss, an embedding's gradient and Adam: see device.py.
//
// Arrays are as callers see them, (T, B, features), contiguous. H: units; K: gates of the kind. Said when this is
// compiled: Real, which is float or double, STREAMS of a block, and THREADS, that it has at most.
//
// A block has STREAMS of the batch and keeps their states in shared memory; blocks have nothing to say to each
// other. Over all time steps it runs by itself, where it multiplies with the recurrent weights: every thread
// has a column of them, so that neighbours read neighbours. That is for few units, whose weights stay in the
// caches. Of many units the host has the products done, and calls for one time step at a time (T = 1): forward
// with the products ready in `z`, backward `alone`. Then nothing is in shared memory.
//
// No two threads add to the same number: results are the same every time. A unit of a stream is always the same
// thread's, by FOR; only what others have to say of it must be waited for.

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
#define FOR(n, size) for (int n = threadIdx.x; n < (size); n += blockDim.x)

__device__ Real sigmoid(Real z) { return Real(0.5) * tanh(Real(0.5) * z) + Real(0.5); }

// z[s, j] = sum over k of h[s, k] w[k, j]: h (STREAMS, H), w (H, columns)
__device__ void recurrent(const Real* w, const Real* h, Real* z, int H, int columns)
{
    FOR(j, columns) {
        Real sum[STREAMS] = {};
        for (int k = 0; k < H; k++) {
            const Real weight = w[(size_t)k * columns + j];
            for (int s = 0; s < STREAMS; s++) sum[s] += h[s * H + k] * weight;
        }
        for (int s = 0; s < STREAMS; s++) z[s * columns + j] = sum[s];
    }
}

// dh[s, k] = sum over j of da[s, j] w[j, k]: da (STREAMS, rows), w (rows, H). As many groups of H threads as
// there are have a share of the rows each; parts (groups, STREAMS, H) are their sums.
__device__ void recurrent_back(const Real* w, const Real* da, Real* dh, Real* parts, int H, int rows)
{
    const int groups = blockDim.x / H, group = threadIdx.x / H, k = threadIdx.x % H;
    if (group < groups) {
        Real sum[STREAMS] = {};
        for (int j = group; j < rows; j += groups) {
            const Real weight = w[(size_t)j * H + k];
            for (int s = 0; s < STREAMS; s++) sum[s] += da[s * rows + j] * weight;
        }
        for (int s = 0; s < STREAMS; s++) parts[(group * STREAMS + s) * H + k] = sum[s];
    }
    __syncthreads();
    FOR(n, STREAMS * H) {
        Real sum = 0;
        for (int g = 0; g < groups; g++) sum += parts[g * STREAMS * H + n];
        dh[n] = sum;
    }
}

// What a block begins with: its streams, and their states (B, H) in shared memory, 0 beyond the last stream.
__device__ int begin(const Real* states, Real* own, int B, int H)
{
    const int first = blockIdx.x * STREAMS;
    FOR(n, STREAMS * H) own[n] = first + n / H < B ? states[(size_t)first * H + n] : Real(0);
    return min(STREAMS, B - first);
}

// The same for a backward pass: d (STREAMS, gates, H) is 0 beyond the last stream.
__device__ int begin(const Real* states, Real* own, Real* d, int gates, int B, int H)
{
    FOR(n, STREAMS * gates * H) d[n] = 0;
    __syncthreads();
    return begin(states, own, B, H);
}

__device__ void end(Real* states, const Real* own, int streams, int H)
{
    FOR(n, streams * H) states[(size_t)blockIdx.x * STREAMS * H + n] = own[n];
}

// --- RNN ----------------------------------------------------------------------------------------------

// h' = tanh(a + W_hh h), or relu. outputs (T, B, H): a, then h'. w: W_hh^T.
KERNEL rnn_forward(
    const Real* w, const Real* z, const Real* h0, int rectified, Real* outputs, int T, int B, int H)
{
    extern __shared__ Real shared[];
    Real *h = shared, *product = h + STREAMS * H;
    const int first = blockIdx.x * STREAMS, streams = z ? min(STREAMS, B - first) : begin(h0, h, B, H);
    for (int t = 0; t < T; t++) {
        __syncthreads();
        if (!z) recurrent(w, h, product, H, H);
        __syncthreads();
        FOR(n, streams * H) {
            const size_t at = ((size_t)t * B + first) * H + n;
            const Real a = outputs[at] + (z ? z[at] : product[n]);
            outputs[at] = rectified ? (a <= 0 ? Real(0) : a) : tanh(a);
            if (!z) h[n] = outputs[at];
        }
    }
}

// da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da, unless `alone`. g: of the outputs, or 0.
KERNEL rnn_backward(
    const Real* w, const Real* g, Real* dh_all, int rectified, const Real* outputs, Real* da, int alone, int T,
    int B, int H)
{
    extern __shared__ Real shared[];
    const int first = blockIdx.x * STREAMS;
    Real *dh = alone ? dh_all + (size_t)first * H : shared, *d = shared + STREAMS * H, *parts = d + STREAMS * H;
    const int streams = alone ? min(STREAMS, B - first) : begin(dh_all, dh, d, 1, B, H);
    for (int t = T - 1; t >= 0; t--) {
        FOR(n, streams * H) {
            const size_t at = ((size_t)t * B + first) * H + n;
            const Real h = outputs[at], up = dh[n] + (g ? g[at] : Real(0));
            da[at] = rectified ? (h > 0 ? up : up * 0) : up * (1 - h) * (1 + h);
            if (!alone) d[n] = da[at];
        }
        __syncthreads();
        if (!alone) recurrent_back(w, d, dh, parts, H, H);
    }
    if (!alone) end(dh_all, dh, streams, H);
}

// --- LSTM ---------------------------------------------------------------------------------------------

// i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')
// gates (T, B, 4 H): W_ih x + biases, then i, f, g, o. cells (T + 1, B, H), the first are there. w: W_hh^T.
KERNEL lstm_forward(
    const Real* w, const Real* z, const Real* h0, Real* outputs, Real* gates, Real* cells, int T, int B, int H)
{
    extern __shared__ Real shared[];
    Real *h = shared, *product = h + STREAMS * H;
    const int first = blockIdx.x * STREAMS, streams = z ? min(STREAMS, B - first) : begin(h0, h, B, H);
    if (z) z += (size_t)first * 4 * H;
    for (int t = 0; t < T; t++) {
        __syncthreads();
        if (!z) recurrent(w, h, product, H, 4 * H);
        __syncthreads();
        FOR(n, streams * H) {
            const int s = n / H, k = n % H;
            const size_t row = (size_t)t * B + first + s;
            Real* a = gates + row * 4 * H + k;
            const Real* more = (z ? z : product) + s * 4 * H + k;
            const Real i = sigmoid(a[0] + more[0]), f = sigmoid(a[H] + more[H]);
            const Real c_in = tanh(a[2 * H] + more[2 * H]), o = sigmoid(a[3 * H] + more[3 * H]);
            const Real c = f * cells[row * H + k] + i * c_in;
            a[0] = i, a[H] = f, a[2 * H] = c_in, a[3 * H] = o;
            cells[(row + B) * H + k] = c;
            outputs[row * H + k] = o * tanh(c);
            if (!z) h[n] = outputs[row * H + k];
        }
    }
}

// dc += dh o (1 - tanh(c')^2)
// da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
// before the step: dh = W_hh^T da, unless `alone`;  dc = dc f
KERNEL lstm_backward(
    const Real* w, const Real* g, Real* dh_all, Real* dc, const Real* gates, const Real* cells, Real* da,
    int alone, int T, int B, int H)
{
    extern __shared__ Real shared[];
    const int first = blockIdx.x * STREAMS;
    Real *dh = alone ? dh_all + (size_t)first * H : shared, *d = shared + STREAMS * H;
    Real* parts = d + STREAMS * 4 * H;
    const int streams = alone ? min(STREAMS, B - first) : begin(dh_all, dh, d, 4, B, H);
    for (int t = T - 1; t >= 0; t--) {
        FOR(n, streams * H) {
            const int s = n / H, k = n % H;
            const size_t row = (size_t)t * B + first + s;
            const Real *a = gates + row * 4 * H + k;
            const Real i = a[0], f = a[H], c_in = a[2 * H], o = a[3 * H];
            const Real tanh_c = tanh(cells[(row + B) * H + k]), up = dh[n] + (g ? g[row * H + k] : Real(0));
            Real* cell = dc + (size_t)(first + s) * H + k;
            const Real d_cell = *cell + up * o * (1 - tanh_c) * (1 + tanh_c);
            Real* to = da + row * 4 * H + k;
            to[0] = d_cell * c_in * i * (1 - i);
            to[H] = d_cell * cells[row * H + k] * f * (1 - f);
            to[2 * H] = d_cell * i * (1 - c_in) * (1 + c_in);
            to[3 * H] = up * tanh_c * o * (1 - o);
            for (int gate = 0; gate < 4 && !alone; gate++) d[(s * 4 + gate) * H + k] = to[gate * H];
            *cell = d_cell * f;
        }
        __syncthreads();
        if (!alone) recurrent_back(w, d, dh, parts, H, 4 * H);
    }
    if (!alone) end(dh_all, dh, streams, H);
}

// --- GRU ----------------------------------------------------------------------------------------------

// r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)
// gates (T, B, 3 H): W_ih x + b_ih, then r, z, n. hidden (T, B, H): W_hn h + b_hn. b_hh (3 H): or 0. w: W_hh^T.
KERNEL gru_forward(
    const Real* w, const Real* z, const Real* h0, const Real* b_hh, Real* outputs, Real* gates, Real* hidden,
    int T, int B, int H)
{
    extern __shared__ Real shared[];
    Real *h = shared, *product = h + STREAMS * H;
    const int first = blockIdx.x * STREAMS, streams = z ? min(STREAMS, B - first) : begin(h0, h, B, H);
    if (z) z += (size_t)first * 3 * H;
    for (int t = 0; t < T; t++) {
        __syncthreads();
        if (!z) recurrent(w, h, product, H, 3 * H);
        __syncthreads();
        FOR(n, streams * H) {
            const int s = n / H, k = n % H;
            const size_t row = (size_t)t * B + first + s;
            Real* a = gates + row * 3 * H + k;
            const Real* more = (z ? z : product) + s * 3 * H + k;
            const Real r = sigmoid(a[0] + more[0] + (b_hh ? b_hh[k] : Real(0)));
            const Real keep = sigmoid(a[H] + more[H] + (b_hh ? b_hh[H + k] : Real(0)));
            const Real part = more[2 * H] + (b_hh ? b_hh[2 * H + k] : Real(0));
            const Real fresh = tanh(a[2 * H] + r * part);
            a[0] = r, a[H] = keep, a[2 * H] = fresh;
            hidden[row * H + k] = part;
            const Real before = z ? h0[(size_t)first * H + n] : h[n];
            outputs[row * H + k] = fresh + keep * (before - fresh);
            if (!z) h[n] = outputs[row * H + k];
        }
    }
}

// da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
// before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r), the second part of it unless `alone`
// before (T, B, H): the states h. da_x (T, B, 3 H): da_r, da_z, da_n; da_h: da_r, da_z, da_n r
KERNEL gru_backward(
    const Real* w, const Real* g, Real* dh_all, const Real* before, const Real* gates, const Real* hidden,
    Real* da_x, Real* da_h, int alone, int T, int B, int H)
{
    extern __shared__ Real shared[];
    const int first = blockIdx.x * STREAMS;
    Real *dh = alone ? dh_all + (size_t)first * H : shared, *past = shared + STREAMS * H;
    Real *d = past + STREAMS * H, *parts = d + STREAMS * 3 * H;
    const int streams = alone ? min(STREAMS, B - first) : begin(dh_all, dh, d, 3, B, H);
    for (int t = T - 1; t >= 0; t--) {
        FOR(n, streams * H) {
            const int s = n / H, k = n % H;
            const size_t row = (size_t)t * B + first + s;
            const Real *a = gates + row * 3 * H + k;
            const Real r = a[0], keep = a[H], fresh = a[2 * H];
            const Real h = before[row * H + k];
            const Real up = dh[n] + (g ? g[row * H + k] : Real(0));
            const Real d_n = up * (1 - keep) * (1 - fresh) * (1 + fresh);
            const Real d_z = up * (h - fresh) * keep * (1 - keep);
            const Real d_r = d_n * hidden[row * H + k] * r * (1 - r);
            Real *x = da_x + row * 3 * H + k, *of_h = da_h + row * 3 * H + k;
            x[0] = of_h[0] = d_r, x[H] = of_h[H] = d_z, x[2 * H] = d_n, of_h[2 * H] = d_n * r;
            for (int gate = 0; gate < 3 && !alone; gate++) d[(s * 3 + gate) * H + k] = of_h[gate * H];
            (alone ? dh : past)[n] = up * keep;  // what goes past the weights
        }
        __syncthreads();
        if (alone) continue;
        recurrent_back(w, d, dh, parts, H, 3 * H);
        FOR(n, streams * H) dh[n] += past[n];
    }
    if (!alone) end(dh_all, dh, streams, H);
}

// --- the loss, an embedding, Adam ---------------------------------------------------------------------

// A block has a row of scores (N, V), which softmax - one_hot replaces; losses (N,) in nats.
KERNEL cross_entropy(Real* scores, const long long* targets, Real* losses, int V)
{
    extern __shared__ Real shared[];  // a number for each thread, a power of two of them
    Real* row = scores + (size_t)blockIdx.x * V;
    const int goal = (int)targets[blockIdx.x];
    Real largest = row[0];
    FOR(v, V) largest = row[v] > largest || row[v] != row[v] ? row[v] : largest;
    shared[threadIdx.x] = largest;
    for (int half = blockDim.x / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            const Real other = shared[threadIdx.x + half];
            if (other > shared[threadIdx.x] || other != other) shared[threadIdx.x] = other;
        }
    }
    __syncthreads();
    largest = shared[0];
    if (threadIdx.x == 0) losses[blockIdx.x] = largest - row[goal];
    __syncthreads();
    Real sum = 0;
    FOR(v, V) sum += row[v] = exp(row[v] - largest);
    shared[threadIdx.x] = sum;
    for (int half = blockDim.x / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    __syncthreads();
    sum = shared[0];
    FOR(v, V) row[v] = row[v] / sum - (v == goal);
    if (threadIdx.x == 0) losses[blockIdx.x] += log(sum);
}

// table (V, D): a block has the row of a symbol, the sum of dx (N, D) where it stands. These are the places
// order[starts[v]], ..., order[starts[v + 1] - 1].
KERNEL sum_by_symbol(
    const long long* order, const long long* starts, const Real* dx, Real* table, int D)
{
    FOR(k, D) {
        Real sum = 0;
        for (long long i = starts[blockIdx.x]; i < starts[blockIdx.x + 1]; i++) sum += dx[order[i] * D + k];
        table[(size_t)blockIdx.x * D + k] = sum;
    }
}

// See Adam in optim/optimizers.py. A row of the table is of a parameter: its size, and the addresses of its
// gradient, of itself, of their mean and of that of their squares. Blocks: (any number, a parameter).
KERNEL adam(
    const long long* table, Real rate, Real root, Real a, Real b, Real eps, Real decay, int decoupled)
{
    const long long *row = table + 5 * blockIdx.y, size = row[0];
    const Real* g = (const Real*)row[1];
    Real *w = (Real*)row[2], *mean = (Real*)row[3], *square = (Real*)row[4];
    const Real kept = decoupled ? 1 - decay : Real(1), pull = decoupled ? Real(0) : decay;
    for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < size;
         k += (long long)gridDim.x * blockDim.x) {
        const Real slope = g[k] + pull * w[k];
        mean[k] += a * (slope - mean[k]);
        square[k] += b * (slope * slope - square[k]);
        w[k] = w[k] * kept - rate * mean[k] / (sqrt(square[k]) / root + eps);
    }
}
