//! Which credentials the two ends will use for which transport.

use super::description::{Description, Section};
use super::{PAIRS_MAX, SdpError};
use crate::protocol::ice::{Credentials, IcePair, Password, Ufrag};

/// The distinct credential pairs that `offer` (the client's) and `answer` (the origin's) agree on:
/// one per transport, the transport of the first m-section first.
///
/// A value in an m-section counts before the session's (RFC 8839, section 5.4). Rejected sections
/// have no transport. The sections of a bundle have the transport of its first; should another of
/// them carry a pair of its own, it is added as long as there is room, for not every agent reads
/// the first section's. Sections meet by their `a=mid`, and by position where one has none.
///
/// Where the origin makes the offer (a WHEP counter-offer), the client's description is still the
/// first argument and the origin's the second: a section that the client rejected gives no pair
/// unless it has credentials.
///
/// # Errors
/// A malformed description, no pair at all, or more transports than [`PAIRS_MAX`].
pub fn pairs(offer: &str, answer: &str) -> Result<Vec<IcePair>, SdpError> {
    let (offer, answer) = (Description::parse(offer)?, Description::parse(answer)?);
    let (of_client, of_origin) = (Side::of(&offer), Side::of(&answer));
    let transports: Vec<usize> = answer.transports().collect();
    let mut pairs = Vec::new();
    for &index in &transports {
        if let Some(pair) = pair_of(&of_client, &of_origin, index)?
            && !pairs.contains(&pair)
        {
            if pairs.len() == PAIRS_MAX {
                return Err(SdpError::TooManyPairs { max: PAIRS_MAX });
            }
            pairs.push(pair);
        }
    }
    for (index, carrier) in answer.carriers().into_iter().enumerate() {
        if carrier != index
            && pairs.len() < PAIRS_MAX
            && let Some(pair) = pair_of(&of_client, &of_origin, index)?
            && !pairs.contains(&pair)
        {
            pairs.push(pair);
        }
    }
    if pairs.is_empty() {
        let has_some = |index| Ok(of_origin.credentials(index)?.is_some());
        let has_some: Result<Vec<bool>, SdpError> = transports.into_iter().map(has_some).collect();
        let description = if has_some?.contains(&true) { "offer" } else { "answer" };
        return Err(SdpError::NoCredentials { description });
    }
    Ok(pairs)
}

/// The new credentials in a fragment that restarts ICE, or those of the session that it belongs to;
/// `None` if it has none.
///
/// # Errors
/// A malformed fragment, half a pair, or several pairs: WHIP and WHEP sessions have one transport.
pub fn fragment_credentials(fragment: &str) -> Result<Option<Credentials>, SdpError> {
    let fragment = Description::parse_fragment(fragment)?;
    let of_session = Halves::of(&fragment.session)?;
    let mut found = of_session;
    let mut is_of_media = false;
    for section in &fragment.media {
        let halves = Halves::of(section)?;
        if halves.ufrag.is_none() && halves.password.is_none() {
            continue;
        }
        let halves = halves.or(&of_session);
        if is_of_media && halves != found {
            return Err(SdpError::TooManyCredentials);
        }
        (found, is_of_media) = (halves, true);
    }
    match found {
        Halves { ufrag: None, password: None } => Ok(None),
        halves => match halves.credentials()? {
            Some(credentials) => Ok(Some(credentials)),
            None => Err(SdpError::NoCredentials { description: "fragment" }),
        },
    }
}

/// The pair of the answer's m-section `index` and the one in the offer that it answers.
fn pair_of(offer: &Side<'_>, answer: &Side<'_>, index: usize) -> Result<Option<IcePair>, SdpError> {
    let mid = answer.mids.get(index).copied().flatten();
    let same_mid = mid.and_then(|_| offer.mids.iter().position(|other| *other == mid));
    let origin = answer.credentials(index)?;
    let client = offer.credentials(same_mid.unwrap_or(index))?;
    Ok(origin.zip(client).map(|(origin, client)| IcePair { origin, client }))
}

/// One end's description, each line of which is looked at once however many sections there are.
struct Side<'a> {
    mids: Vec<Option<&'a str>>,
    of_session: Result<Halves<'a>, SdpError>,
    of_media: Vec<Result<Halves<'a>, SdpError>>,
}

impl<'a> Side<'a> {
    fn of(description: &Description<'a>) -> Self {
        Self {
            mids: description.mids(),
            of_session: Halves::of(&description.session),
            of_media: description.media.iter().map(Halves::of).collect(),
        }
    }

    /// What counts in the m-section `index`, where there is one.
    fn credentials(&self, index: usize) -> Result<Option<Credentials>, SdpError> {
        match self.of_media.get(index) {
            Some(of_media) => (*of_media)?.or(&self.of_session?).credentials(),
            None => Ok(None),
        }
    }
}

/// The two values as one section gives them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Halves<'a> {
    ufrag: Option<&'a str>,
    password: Option<&'a str>,
}

impl<'a> Halves<'a> {
    fn of(section: &Section<'a>) -> Result<Self, SdpError> {
        let only = |attribute: &'static str| {
            let mut values = section.values(attribute);
            let first = values.next();
            match values.find(|value| Some(*value) != first) {
                Some(_) => Err(SdpError::Ambiguous { attribute }),
                None => Ok(first),
            }
        };
        Ok(Self { ufrag: only("ice-ufrag")?, password: only("ice-pwd")? })
    }

    /// The session's values in place of those that a section lacks.
    fn or(self, session: &Self) -> Self {
        Self { ufrag: self.ufrag.or(session.ufrag), password: self.password.or(session.password) }
    }

    fn credentials(self) -> Result<Option<Credentials>, SdpError> {
        let (Some(ufrag), Some(password)) = (self.ufrag, self.password) else { return Ok(None) };
        Ok(Some(Credentials { ufrag: Ufrag::parse(ufrag)?, password: Password::parse(password)? }))
    }
}
