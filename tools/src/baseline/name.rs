//! An address as the kernel writes it, which is a key as it stands.

/// Room for a `sockaddr_in6`, or for a `sockaddr_in` with zeros behind it: the kernel zeroes what it
/// does not use of either, so equal addresses have equal bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub(super) struct Name([u64; 4]);

impl Name {
    /// What the kernel may write.
    pub(super) const LEN: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

    /// What the kernel wrote: the family stands in the first two bytes.
    pub(super) fn len(&self) -> libc::socklen_t {
        let [first, ..] = self.0;
        let [low, high, ..] = first.to_ne_bytes();
        if i32::from(u16::from_ne_bytes([low, high])) == libc::AF_INET6 {
            Self::LEN
        } else {
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
    }

    pub(super) fn words(&self) -> [u64; 4] {
        self.0
    }
}
