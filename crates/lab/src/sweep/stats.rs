//! Mean, standard deviation, and Student's paired test.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and standard deviation of a sample (n − 1); none of the second for fewer than two values.
pub fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
    Some((mean, deviation))
}

/// The choice with the most numbers, and of those the one with the best mean: a choice that lost some of its
/// numbers never wins over one that did not. Of equals the first counts; none where there is no choice.
pub fn best_choice(choices: &[Vec<f64>], more: bool) -> Option<usize> {
    let rank =
        |numbers: &[f64]| {
            let mean = mean_and_deviation(numbers).map_or(f64::NEG_INFINITY, |(mean, _)| {
                if more { mean } else { -mean }
            });
            (numbers.len(), mean)
        };
    let better = |a: &usize, b: &usize| {
        let ((n, x), (m, y)) = (rank(&choices[*a]), rank(&choices[*b]));
        n.cmp(&m).then(x.total_cmp(&y))
    };
    (0..choices.len()).rev().max_by(better)
}

/// What a paired t test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Pairs.
    pub pairs: usize,
    /// Mean of the differences.
    pub difference: f64,
    /// Student's t; not finite where all differences are equal.
    pub t: f64,
    /// Two-sided probability of such a t where there is no difference; none where t says nothing.
    pub p: Option<f64>,
}

/// Student's t test of paired values (first minus second); none for fewer than two pairs.
pub fn paired(pairs: &[(f64, f64)]) -> Option<Paired> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let (difference, deviation) = mean_and_deviation(&differences)?;
    let n = pairs.len() as f64;
    let t = difference / (deviation? / n.sqrt());
    let p = if t.is_nan() {
        // All pairs are equal: nothing speaks for a difference.
        Some(1.0)
    } else if t.is_infinite() {
        None
    } else {
        let distribution = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
        Some(2.0 * distribution.sf(t.abs()))
    };
    Some(Paired {
        pairs: pairs.len(),
        difference,
        t,
        p,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: Student's own example (sleep data, ten patients on two drugs): t = −4.0621, p = 0.002833.
    #[test]
    fn students_sleep_data() {
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let pairs: Vec<_> = first.into_iter().zip(second).collect();
        let test = paired(&pairs).expect("ten pairs");
        assert!((test.difference + 1.58).abs() < 1e-12);
        assert!((test.t + 4.0621).abs() < 5e-5, "{test:?}");
        assert!((test.p.expect("a p") - 0.002_833).abs() < 5e-7, "{test:?}");
        let (mean, deviation) = mean_and_deviation(&first).expect("values");
        assert!((mean - 0.75).abs() < 1e-12);
        assert!((deviation.expect("two values") - 1.789_01).abs() < 5e-6);
    }

    #[test]
    fn too_little_to_say() {
        assert_eq!(mean_and_deviation(&[]), None);
        assert_eq!(mean_and_deviation(&[2.0]), Some((2.0, None)));
        assert_eq!(paired(&[(1.0, 2.0)]), None);
        assert_eq!(
            paired(&[(1.0, 1.0), (2.0, 2.0)]).and_then(|t| t.p),
            Some(1.0)
        );
        assert_eq!(paired(&[(1.0, 0.5), (2.0, 1.5)]).and_then(|t| t.p), None);
    }
}
