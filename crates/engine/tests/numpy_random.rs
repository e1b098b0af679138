//! The generator against values that NumPy printed. Oracle: `golden/numpy_random.json`, made by
//! `golden/numpy_random.py`.

use sansprop::rng::LegacyRandom;
use serde_json::Value;

fn golden() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../golden/numpy_random.json"
    );
    let text = std::fs::read_to_string(path).expect("the golden file is part of the repository");
    serde_json::from_str(&text).expect("the golden file is JSON")
}

fn bits(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("a hex string"), 16).expect("hex digits")
}

fn whole(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

#[test]
fn fresh_streams() {
    for case in array(&golden()["seeds"]) {
        let seed = case["seed"].as_u64().expect("a seed") as u32;
        let fresh = &case["fresh"];
        let mut random = LegacyRandom::new(seed);
        for expected in array(&fresh["raw_u32"]) {
            assert_eq!(
                u64::from(random.next_u32()),
                expected.as_u64().expect("32 bits"),
                "seed {seed}"
            );
        }
        let mut random = LegacyRandom::new(seed);
        for expected in array(&fresh["random_sample"]) {
            assert_eq!(random.uniform().to_bits(), bits(expected), "seed {seed}");
        }
        let mut random = LegacyRandom::new(seed);
        let normals: Vec<u64> = (0..1001).map(|_| random.normal().to_bits()).collect();
        let expected = &fresh["normal_1001"];
        let first: Vec<u64> = array(&expected["first_20"]).iter().map(bits).collect();
        let last: Vec<u64> = array(&expected["last_5"]).iter().map(bits).collect();
        assert_eq!(normals[..20], first, "seed {seed}");
        assert_eq!(normals[996..], last, "seed {seed}");
        let sum = normals.iter().fold(0u64, |sum, b| sum.wrapping_add(*b));
        assert_eq!(
            sum.to_string(),
            expected["bit_sum"].as_str().expect("a decimal string")
        );
    }
}

#[test]
fn one_stream() {
    for case in array(&golden()["seeds"]) {
        let stream = &case["one_stream"];
        let mut random = LegacyRandom::new(case["seed"].as_u64().expect("a seed") as u32);
        let normals = |random: &mut LegacyRandom, expected: &Value| {
            for expected in array(expected) {
                assert_eq!(random.normal().to_bits(), bits(expected));
            }
        };
        let permutation = |random: &mut LegacyRandom, expected: &Value| {
            let expected: Vec<usize> = array(expected).iter().map(whole).collect();
            assert_eq!(random.permutation(expected.len()), expected);
        };
        normals(&mut random, &stream["normal_3"]);
        permutation(&mut random, &stream["permutation_10"]);
        normals(&mut random, &stream["normal_2"]);
        permutation(&mut random, &stream["permutation_1000"]);
        let long = random.permutation(45_000);
        let expected = &stream["permutation_45000"];
        let ends = |key: &str| -> Vec<usize> { array(&expected[key]).iter().map(whole).collect() };
        assert_eq!(long[..20], ends("first_20"));
        assert_eq!(long[44_980..], ends("last_20"));
        let sum: usize = long.iter().enumerate().map(|(i, p)| i * p).sum();
        assert_eq!(
            sum.to_string(),
            expected["index_weighted_sum"]
                .as_str()
                .expect("a decimal string")
        );
        permutation(&mut random, &stream["permutation_1"]);
        permutation(&mut random, &stream["permutation_0"]);
        for expected in array(&stream["binomial_4x7"]) {
            assert_eq!(usize::from(random.uniform() > 0.5), whole(expected));
        }
        for expected in array(&stream["random_sample_2"]) {
            assert_eq!(random.uniform().to_bits(), bits(expected));
        }
        normals(&mut random, &stream["normal_1"]);
    }
}
