//! Where randomness comes from: one seed a process, forked by purpose, so that a simulation decides everything and a
//! new consumer of randomness does not shift the draws of the others.

use rand::{SeedableRng, TryRng, rngs::StdRng, rngs::SysRng};

/// A source of independent random generators.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed nobody can guess, from the operating system.
    ///
    /// # Errors
    /// The operating system has no randomness to give; nothing secure can be done without it.
    pub fn from_os() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The seed of a simulation or a test.
    pub fn fixed(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }

    /// A seed of its own for `purpose`, always the same for the same purpose.
    pub fn fork(&self, purpose: &str) -> Self {
        let mut state = self.0;
        // FNV-1a over the purpose, spread over the seed; the generator behind it is what makes the result random.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for (slot, byte) in state.iter_mut().skip(8).step_by(3).zip(hash.to_le_bytes()) {
            *slot ^= byte;
        }
        let mut forked = [0; 32];
        rand::Rng::fill_bytes(&mut StdRng::from_seed(state), &mut forked);
        Self(forked)
    }

    /// A generator that starts from this seed; two calls give the same one.
    pub fn rng(&self) -> StdRng {
        StdRng::from_seed(self.0)
    }
}

/// Never shows the seed: certificates' serial numbers come from it.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct NoRandomness(String);

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn forks_repeat_by_purpose_and_differ_between_purposes() {
        let seed = Seed::fixed(7);
        let draw = |seed: Seed| seed.rng().next_u64();
        assert_eq!(draw(seed.fork("jitter")), draw(seed.fork("jitter")));
        assert_ne!(draw(seed.fork("jitter")), draw(seed.fork("serials")));
        assert_ne!(draw(seed.fork("jitter")), draw(Seed::fixed(8).fork("jitter")));
        assert_ne!(draw(seed.fork("a").fork("b")), draw(seed.fork("b").fork("a")));
    }
}
