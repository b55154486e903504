// Kernels with and without one mistake of addressing. Tests find lines by the words after "//:".

template <bool healthy> __global__ void read_past_the_end(const float* x, float* y, int n) {
    const int i = threadIdx.x;
    if (i < n) y[i] = x[healthy ? i : i + 1];  //: global read
}

template <bool healthy> __global__ void write_before_the_start(float* y, int n) {
    const int i = threadIdx.x;
    if (i < n) y[healthy ? i : i - 1] = 1;  //: global write
}

template <bool healthy> __global__ void past_dynamic_shared(float* y) {
    extern __shared__ float buffer[];
    buffer[healthy ? threadIdx.x : threadIdx.x + 1] = 1;  //: dynamic shared
    __syncthreads();
    y[threadIdx.x] = buffer[threadIdx.x];
}

template <bool healthy> __global__ void past_static_shared(float* y) {
    __shared__ float tile[32];
    tile[healthy ? threadIdx.x : threadIdx.x + 1] = 1;  //: static shared
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

template <bool healthy> __global__ void past_a_local_array(float* y, int n) {
    float values[4];
    for (int i = 0; i < (healthy ? 4 : n); ++i) values[i] = float(i);  //: local array
    y[threadIdx.x] = values[threadIdx.x % 4];
}

template <bool healthy> __global__ void uninitialised_shared(const float* x, float* y, int n) {
    __shared__ float tile[64];
    if (int(threadIdx.x) < n) tile[threadIdx.x] = x[threadIdx.x];
    else if (healthy) tile[threadIdx.x] = 0;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < 64; ++i) sum += tile[i];
    y[threadIdx.x] = sum;
}

template <bool healthy> __global__ void misaligned_vector(const float* x, float* y) {
    const float4 v = *reinterpret_cast<const float4*>(x + (healthy ? 4 : 3));  //: vector load
    y[threadIdx.x] = v.x + v.w;
}

template <bool healthy> __global__ void wild_pointer(float* y) {
    // Below what Linux lets a process map (vm.mmap_min_addr), wherever its heap lies.
    float* p = healthy ? y : reinterpret_cast<float*>(0x8000);
    p[threadIdx.x] = 1;  //: wild store
}

template <bool healthy> __global__ void write_to_const(const float* x, float* y) {
    float* p = healthy ? y : const_cast<float*>(x);
    p[threadIdx.x] = 1;  //: store to const
}

template <bool healthy> __global__ void deep_frame(float* y) {  //: frame
    volatile float frame[healthy ? 32 : 100000];
    frame[threadIdx.x] = 1;
    y[threadIdx.x] = frame[threadIdx.x];
}

template <bool healthy> __global__ void overflowing_offset(float* y, int rows, int columns) {
    const long long last = healthy ? (long long)rows * columns : rows * columns;  //: 32-bit product
    if (threadIdx.x == 0) y[0] = float(last);
}

template <bool healthy> __global__ void failed_assertion(float* y, int n) {
    assert(healthy || n < 10);  //: assertion
    y[threadIdx.x] = 1;
}
