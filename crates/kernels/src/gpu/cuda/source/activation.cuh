// σ and σ′.

enum class Activation { Linear, Relu, Tanh, Erf };

/// σ(z). NaN stays NaN: a diverged network must not look alive.
template <Activation A> DEVICE float activate(float z) {
    if (A == Activation::Relu) return z <= 0.0f ? 0.0f : z;
    if (A == Activation::Tanh) return tanhf(z);
    if (A == Activation::Erf) return erff(z);
    return z;
}

/// σ′(z).
template <Activation A> DEVICE float slope(float z) {
    if (A == Activation::Relu) return z > 0.0f ? 1.0f : 0.0f;
    if (A == Activation::Tanh) {
        float t = tanhf(z);
        return 1.0f - t * t;
    }
    // 2/√π.
    if (A == Activation::Erf) return 1.12837917f * expf(-z * z);
    return 1.0f;
}
