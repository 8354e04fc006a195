//! The cases of `tests/vectors` with packed segments.

use agent_evidence::packed;

use super::*;

/// Packs the first bundle, and removes it and its tile.
fn pack_first(files: &mut Files) {
    let Some(bundle) = files.0.remove("tile/entries/000") else { return };
    files.0.remove("tile/0/000");
    if let Ok(segment) = packed::pack(&bundle, 6).and_then(|block| packed::join(&[block])) {
        files.0.insert(packed::path(0), segment);
    }
}

/// Packs the first bundle after changing it.
fn pack_changed(files: &mut Files, change: impl FnOnce(&mut Vec<u8>)) {
    change(file(files, "tile/entries/000"));
    pack_first(files);
}

pub(super) fn packed_segments(cases: &mut Cases) -> Result<(), BuildError> {
    let log = long_log()?;
    cases.damaged("packed", "nothing: the first bundle is packed", &log, pack_first, &[])?;
    let whole = |files: &mut Files| {
        let Some(bundle) = files.0.get("tile/entries/000").cloned() else { return };
        pack_first(files);
        // The other form of a block, as for entries that the agent does not write.
        let block = [&[0], miniz_oxide::deflate::compress_to_vec_zlib(&bundle, 6).as_slice()].concat();
        if let Ok(segment) = packed::join(&[block]) {
            files.0.insert(packed::path(0), segment);
        }
    };
    cases.damaged("packed_whole", "nothing: the first bundle is packed as it is", &log, whole, &[])?;
    let plain_first = |files: &mut Files| {
        let plain = files.clone();
        pack_changed(files, |bundle| replace_once(bundle, b"python3", b"python4"));
        files.0.extend(plain.0.into_iter().filter(|(path, _)| path.starts_with("tile/")));
    };
    cases.damaged(
        "packed_and_plain",
        "a segment differs from the plain bundle, which goes before it",
        &log,
        plain_first,
        &[],
    )?;
    let edit = |files: &mut Files| pack_changed(files, |bundle| replace_once(bundle, b"python3", b"python4"));
    cases.damaged(
        "packed_altered",
        "an entry was edited and packed",
        &log,
        edit,
        &[
            "previous_mismatch",
            "session_hash_wrong",
            "session_hash_wrong",
            "equivocation",
            "tile_differs",
            "root_mismatch",
        ],
    )?;
    let missing = &["tile_missing", "bundle_missing", "segment_malformed"];
    let damage = |files: &mut Files| {
        pack_first(files);
        if let Some(byte) = file(files, "packed/000").iter_mut().next_back() {
            *byte ^= 1;
        }
    };
    cases.damaged("segment_malformed", "the checksum of a packed block was changed", &log, damage, missing)?;
    let cut = |files: &mut Files| {
        pack_first(files);
        file(files, "packed/000").pop();
    };
    cases.damaged("segment_malformed_cut", "the last byte of a segment was removed", &log, cut, missing)?;
    let more = |files: &mut Files| {
        pack_first(files);
        file(files, "packed/000").push(0);
    };
    cases.damaged("segment_malformed_longer", "a byte was added to a segment", &log, more, missing)?;
    let none = |files: &mut Files| {
        pack_first(files);
        let segment = file(files, "packed/000");
        segment.truncate(packed::MAGIC.len());
        segment.extend_from_slice(&[0, 0]);
    };
    cases.damaged("segment_malformed_empty", "a segment without blocks", &log, none, missing)?;
    let magic = |files: &mut Files| {
        pack_first(files);
        replace_once(file(files, "packed/000"), b"v1", b"v2");
    };
    cases.damaged("segment_malformed_version", "a segment of another version", &log, magic, missing)?;
    let blocks: [(&str, &'static str, Vec<u8>); 4] = [
        ("segment_malformed_form", "a block of no known form", vec![2]),
        ("segment_malformed_lines", "a block with one line", lines(b"{\"prev\":\"\",\"rnd\":\"\"}\n")),
        ("segment_malformed_line", "a block with a line that has no place for `prev`", lines(&b"{}\n".repeat(256))),
        ("segment_malformed_bundle", "a block with a bundle that is cut off", {
            [&[0], miniz_oxide::deflate::compress_to_vec_zlib(b"\x00", 6).as_slice()].concat()
        }),
    ];
    for (name, what, block) in blocks {
        let replace = |files: &mut Files| {
            pack_first(files);
            if let Ok(segment) = packed::join(&[block]) {
                files.0.insert(packed::path(0), segment);
            }
        };
        cases.damaged(name, what, &log, replace, missing)?;
    }
    let gone = |files: &mut Files| {
        pack_first(files);
        files.0.remove("packed/000");
    };
    cases.damaged("segment_removed", "a packed segment was removed", &log, gone, &["tile_missing", "bundle_missing"])
}

/// A block of lines, with zeros for what stands before them.
fn lines(text: &[u8]) -> Vec<u8> {
    let mut block = vec![1];
    block.resize(1 + 32 + 16 * 256, 0);
    block.extend_from_slice(&miniz_oxide::deflate::compress_to_vec_zlib(text, 6));
    block
}
