// What the host must know of a kernel to launch it with checked arguments, deduced by the compiler from the kernel's type.
#pragma once

namespace cuda_emulator {

// `element` is a letter: f float, i signed, u unsigned, b bool, h half, g bfloat16, v untyped bytes, s any other structure.
struct Parameter {
    char element;
    bool pointer, writable;
    int element_bytes;  // of a vector's component
    int bytes;          // of the parameter itself, or of what it points to
    const char* type;
};

struct Kernel {
    const char* name;
    void (*run)(void** arguments);
    const Parameter* parameters;
    int parameter_count;
};

template <class T> struct Element { static constexpr char letter = 's'; static constexpr int bytes = sizeof(T); };
template <> struct Element<void> { static constexpr char letter = 'v'; static constexpr int bytes = 1; };
template <> struct Element<char> : Element<void> {};

#define CUDA_EMULATOR_ELEMENT(T, LETTER) \
    template <> struct Element<T> { static constexpr char letter = LETTER; static constexpr int bytes = sizeof(T); };
CUDA_EMULATOR_ELEMENT(bool, 'b')
CUDA_EMULATOR_ELEMENT(float, 'f')
CUDA_EMULATOR_ELEMENT(double, 'f')
CUDA_EMULATOR_ELEMENT(signed char, 'i')
CUDA_EMULATOR_ELEMENT(short, 'i')
CUDA_EMULATOR_ELEMENT(int, 'i')
CUDA_EMULATOR_ELEMENT(long, 'i')
CUDA_EMULATOR_ELEMENT(long long, 'i')
CUDA_EMULATOR_ELEMENT(unsigned char, 'u')
CUDA_EMULATOR_ELEMENT(unsigned short, 'u')
CUDA_EMULATOR_ELEMENT(unsigned int, 'u')
CUDA_EMULATOR_ELEMENT(unsigned long, 'u')
CUDA_EMULATOR_ELEMENT(unsigned long long, 'u')

#define CUDA_EMULATOR_ELEMENTS(T, NAME)          \
    template <> struct Element<NAME##1> : Element<T> {}; \
    template <> struct Element<NAME##2> : Element<T> {}; \
    template <> struct Element<NAME##3> : Element<T> {}; \
    template <> struct Element<NAME##4> : Element<T> {};
CUDA_EMULATOR_ELEMENTS(signed char, char)
CUDA_EMULATOR_ELEMENTS(unsigned char, uchar)
CUDA_EMULATOR_ELEMENTS(short, short)
CUDA_EMULATOR_ELEMENTS(unsigned short, ushort)
CUDA_EMULATOR_ELEMENTS(int, int)
CUDA_EMULATOR_ELEMENTS(unsigned int, uint)
CUDA_EMULATOR_ELEMENTS(long, long)
CUDA_EMULATOR_ELEMENTS(unsigned long, ulong)
CUDA_EMULATOR_ELEMENTS(long long, longlong)
CUDA_EMULATOR_ELEMENTS(unsigned long long, ulonglong)
CUDA_EMULATOR_ELEMENTS(float, float)
CUDA_EMULATOR_ELEMENTS(double, double)
#undef CUDA_EMULATOR_ELEMENTS

template <class T> struct Plain { using type = T; static constexpr bool is_const = false; };
template <class T> struct Plain<const T> { using type = typename Plain<T>::type; static constexpr bool is_const = true; };
template <class T> struct Plain<volatile T> : Plain<T> {};
template <class T> struct Plain<const volatile T> : Plain<const T> {};

template <class T> struct Size { static constexpr int bytes = sizeof(T); };
template <> struct Size<void> { static constexpr int bytes = 1; };

// "constexpr const char* cuda_emulator::type_name() [with T = const float*]": the host cuts the type out of it.
template <class T> constexpr const char* type_name() { return __PRETTY_FUNCTION__; }

template <class T> struct Describe {
    using Type = typename Plain<T>::type;
    static constexpr Parameter value = {
        Element<Type>::letter, false, false, Element<Type>::bytes, Size<Type>::bytes, type_name<T>()};
};
template <class T> struct Describe<T*> {
    using Pointee = typename Plain<T>::type;
    static constexpr Parameter value = {
        Element<Pointee>::letter, true, !Plain<T>::is_const, Element<Pointee>::bytes, Size<Pointee>::bytes, type_name<T*>()};
};
template <class T> struct Describe<T* const> : Describe<T*> {};

template <int... I> struct Indices {};
template <int N, int... I> struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I> struct CountTo<0, I...> { using type = Indices<I...>; };

template <auto function> struct Entry;
template <class... P, void (*function)(P...)> struct Entry<function> {
    static constexpr int count = sizeof...(P);
    // One more than the parameters, since an array of none is not C++.
    static constexpr Parameter parameters[sizeof...(P) + 1] = {Describe<P>::value..., {}};
    template <int... I> __attribute__((no_sanitize("thread"))) static void call(void** arguments, Indices<I...>) { function(*static_cast<P*>(arguments[I])...); }
    __attribute__((no_sanitize("thread"))) static void run(void** arguments) { call(arguments, typename CountTo<count>::type()); }
};

}  // namespace cuda_emulator
