//! NumPy's legacy generator (`numpy.random.seed`, `RandomState`), bit for bit.
//!
//! The published runs draw everything from it; following it makes a seed mean the same network and the same
//! minibatches here and there. Streams frozen by NumPy's compatibility policy (NEP 19).

const LEN: usize = 624;
const SHIFT: usize = 397;

/// `numpy.random.RandomState(seed)`: MT19937, the polar Gaussian that caches its second value, and
/// Fisher–Yates permutations with masked rejection.
#[derive(Clone, Debug)]
pub struct LegacyRandom {
    state: [u32; LEN],
    position: usize,
    cached_normal: Option<f64>,
}

impl LegacyRandom {
    /// `numpy.random.seed(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [0; LEN];
        let mut value = seed;
        for (i, s) in state.iter_mut().enumerate() {
            *s = value;
            value = (value ^ (value >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32 + 1);
        }
        Self {
            state,
            position: LEN,
            cached_normal: None,
        }
    }

    fn refill(&mut self) {
        for i in 0..LEN {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % LEN] & 0x7fff_ffff);
            let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + SHIFT) % LEN] ^ (y >> 1) ^ twist;
        }
        self.position = 0;
    }

    /// The next raw 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.position == LEN {
            self.refill();
        }
        let mut y = self.state[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `random_sample()`: uniform in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let high = f64::from(self.next_u32() >> 5);
        let low = f64::from(self.next_u32() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `standard_normal()`: Marsaglia's polar method, the second value of each pair cached.
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.cached_normal.take() {
            return value;
        }
        loop {
            let x = 2.0 * self.uniform() - 1.0;
            let y = 2.0 * self.uniform() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.cached_normal = Some(factor * x);
                return factor * y;
            }
        }
    }

    /// A whole number in `0..=most`, by masked rejection.
    fn interval(&mut self, most: u32) -> u32 {
        if most == 0 {
            return 0;
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let value = self.next_u32() & mask;
            if value <= most {
                return value;
            }
        }
    }

    /// `permutation(len)`.
    ///
    /// # Panics
    /// If `len` does not fit in 32 bits.
    pub fn permutation(&mut self, len: usize) -> Vec<usize> {
        assert!(u32::try_from(len).is_ok(), "a permutation of {len} values");
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            let j = self.interval(i as u32) as usize;
            order.swap(i, j);
        }
        order
    }
}
