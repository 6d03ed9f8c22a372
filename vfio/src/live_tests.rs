use std::io::Write;

use pagewire_hal::{Ledger, Region};
use pagewire_models::{Host, HostConfig};

use super::*;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn copy(live: &LiveFile, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    Live::copy_to(live, start, &mut bytes);
    bytes
}

#[test]
fn what_is_written_to_the_file_is_seen_at_once() {
    let page = rustix::param::page_size();
    let file = file(&vec![b'o'; 3 * page]);
    let live = LiveFile::map(file.try_clone().unwrap(), page as u64, 2 * page).unwrap();
    assert_eq!(copy(&live, 5, 3), b"ooo");
    file.write_all_at(b"new", page as u64 + 5).unwrap();
    assert_eq!(copy(&live, 5, 3), b"new");
    assert!(matches!(live.sharing(), Sharing::Live(_)));
}

/// Truncation and growth while it is mapped, and lent: no signal, zeros.
#[test]
fn truncation_and_growth_crash_nothing() {
    let page = rustix::param::page_size();
    let file = file(&vec![b'x'; 4 * page]);
    let live = LiveFile::map(file.try_clone().unwrap(), 0, 4 * page).unwrap();
    let host = Host::new(HostConfig::default());
    let region = host.register(live).unwrap();
    let granule = pagewire_hal::Granule::from_bytes(page).unwrap();
    let mut ledger = Ledger::new(host.domain(), 64, granule);
    let id = ledger.register(region.clone()).unwrap();
    let loan = ledger.lend(id, 0, 4 * page).unwrap();
    file.set_len(page as u64 + 10).unwrap();
    let mut bytes = vec![1; 4 * page];
    ledger.copy_lent(&loan, 0, &mut bytes).unwrap();
    assert!(bytes[..page + 10].iter().all(|byte| *byte == b'x'));
    assert!(bytes[page + 10..].iter().all(|byte| *byte == 0));
    file.set_len(8 * page as u64).unwrap();
    file.write_all_at(b"grown", 2 * page as u64).unwrap();
    ledger.copy_lent(&loan, 2 * page, &mut bytes[..5]).unwrap();
    assert_eq!(&bytes[..5], b"grown");
    ledger.give_back(loan);
    assert_eq!(region.len(), 4 * page);
}

#[test]
fn nothing_and_what_is_no_file_are_refused() {
    let page = rustix::param::page_size();
    assert_eq!(
        LiveFile::map(file(b"x"), 0, 0).err(),
        Some(VfioError::Empty)
    );
    let odd = LiveFile::map(file(b"x"), 1, page).unwrap_err();
    assert!(odd.to_string().contains("cannot map a file"), "{odd}");
    let folder = File::open("/").unwrap();
    assert!(LiveFile::map(folder, 0, page).is_err());
}
