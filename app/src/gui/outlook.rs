//! What a job will take, in words, and a warning where there is too little of something.

use eframe::egui::{Response, Ui};

use super::tasks::forecast::Outlook;
use super::text::seconds;
use super::theme::{Type, palette};
use super::widgets::shortened;
use crate::progress::human_bytes;

/// Time, memory and disk.
pub(crate) fn words(outlook: &Outlook) -> String {
    let about = if outlook.measured { "about" } else { "perhaps" };
    let (time, memory) = (seconds(outlook.seconds), human_bytes(outlook.memory));
    // The file counts too, wherever it goes.
    let disk = human_bytes(outlook.disk.saturating_add(outlook.file));
    format!("{about} {time}, {memory} of memory, {disk} of disk")
}

/// What there is too little of; none where there is enough of everything.
pub(crate) fn shortage(outlook: &Outlook) -> Option<String> {
    let mut short = vec![];
    let mut compare = |what: &str, needed: u64, free: u64| {
        if needed > free {
            short.push(format!("{what}: {} needed, {} free", human_bytes(needed), human_bytes(free)));
        }
    };
    compare("memory", outlook.memory, outlook.memory_free);
    compare("disk", outlook.disk, outlook.disk_free);
    if let Some(free) = outlook.file_free {
        compare("disk for the file", outlook.file, free);
    }
    (!short.is_empty()).then(|| format!("too little {}", short.join("; too little ")))
}

/// What is free, for comparison.
fn free(outlook: &Outlook) -> String {
    let [memory, disk] = [outlook.memory_free, outlook.disk_free].map(human_bytes);
    format!("{memory} of memory and {disk} of disk are free")
}

/// A line with what is known.
pub(crate) fn line(ui: &mut Ui, known: Option<&Result<Outlook, String>>) -> Response {
    let p = palette(ui);
    let (text, colour, more) = match known {
        None => ("Looking how long it will take…".to_owned(), p.muted, None),
        Some(Err(why)) => (why.clone(), p.bad, Some(why.clone())),
        Some(Ok(outlook)) if outlook.known => {
            ("This clip was made before; it is there at once".to_owned(), p.good, None)
        }
        Some(Ok(outlook)) => match shortage(outlook) {
            Some(short) => {
                let more = format!("{short}; it takes {}", words(outlook));
                (short, p.warning, Some(more))
            }
            None => (words(outlook), p.muted, Some(free(outlook))),
        },
    };
    let width = ui.available_width();
    let response = shortened(ui, &text, Type::Caption, colour, width);
    match more {
        Some(more) => response.on_hover_text(more),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Outlook = Outlook {
        seconds: 12.0,
        measured: true,
        memory: 700_000_000,
        disk: 34_000_000,
        memory_free: 8_000_000_000,
        disk_free: 90_000_000_000,
        file: 2_000_000,
        file_free: Some(5_000_000_000),
        known: false,
    };

    #[test]
    fn time_memory_and_disk_are_said_and_what_is_short() {
        assert_eq!(words(&PLENTY), "about 12 s, 700.0 MB of memory, 36.0 MB of disk");
        assert_eq!(shortage(&PLENTY), None);
        assert_eq!(free(&PLENTY), "8.00 GB of memory and 90.00 GB of disk are free");
        let short = Outlook { measured: false, memory_free: 500_000_000, ..PLENTY };
        assert!(words(&short).starts_with("perhaps 12 s"));
        assert_eq!(shortage(&short).as_deref(), Some("too little memory: 700.0 MB needed, 500.0 MB free"));
        let both = Outlook { file_free: Some(1_000_000), disk_free: 30_000_000, ..PLENTY };
        assert_eq!(
            shortage(&both).as_deref(),
            Some(
                "too little disk: 34.0 MB needed, 30.0 MB free; too little disk for the file: 2.0 MB needed, \
                 1.0 MB free"
            )
        );
        assert_eq!(shortage(&Outlook { file_free: None, ..PLENTY }), None, "who does not say is believed");
    }
}
