//! Everything that can be done, once: menus, palette, shortcuts and help are views of this table.

mod keys;

use eframe::egui::{Context, Key, KeyboardShortcut, Modifiers};

use super::icons;
use super::layout::Pane;
use super::model::settings::ThemeChoice;
pub(crate) use keys::{pressed, written};

/// Where a command is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Projects and files.
    File,
    /// The document.
    Edit,
    /// What is seen.
    View,
    /// The tools of the canvas.
    Tools,
    /// Making clips.
    Render,
    /// Playing clips.
    Play,
    /// Clips over time.
    Timeline,
    /// Help.
    Help,
}

impl Group {
    /// In the order of the menu bar.
    pub(crate) const ALL: [Self; 8] = [
        Self::File,
        Self::Edit,
        Self::View,
        Self::Tools,
        Self::Timeline,
        Self::Render,
        Self::Play,
        Self::Help,
    ];

    /// The menu's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Edit => "Edit",
            Self::View => "View",
            Self::Tools => "Tools",
            Self::Render => "Render",
            Self::Play => "Play",
            Self::Timeline => "Timeline",
            Self::Help => "Help",
        }
    }
}

/// Something that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    AddMedia,
    OpenDocument,
    OpenPictures,
    Save,
    SaveAs,
    Versions,
    FindMissing,
    CloseProject,
    Quit,
    Undo,
    Redo,
    Delete,
    RemoveRegion,
    RemoveItem,
    CopyKeys,
    PasteKeys,
    PreviousRegion,
    NextRegion,
    RaiseRegion,
    LowerRegion,
    NewRegion,
    NextCandidate,
    PreviousCandidate,
    AnimateFrame,
    ZoomIn,
    ZoomOut,
    ZoomFit,
    ZoomPixels,
    ViewNext,
    Theme(ThemeChoice),
    LargerText,
    SmallerText,
    ShowPane(Pane),
    ResetLayout,
    ToolClick,
    ToolLeaveOut,
    ToolBrush,
    ToolErase,
    ToolPan,
    Animate,
    Retake,
    Extend,
    StopRender,
    Export,
    ExportTimeline,
    PauseQueue,
    RetryJob,
    JobEarlier,
    JobLater,
    ClearFinished,
    CompareTakes,
    StarTake,
    UseTake,
    RenderTakeAgain,
    Offline,
    PlayPause,
    PlayBackward,
    Pause,
    PlayForward,
    StepBack,
    StepForward,
    GoToStart,
    GoToEnd,
    MarkIn,
    MarkOut,
    ClearMarks,
    GoToIn,
    GoToOut,
    Repeat,
    PlayTimeline,
    PlaySource,
    Mute,
    Louder,
    Quieter,
    SplitClip,
    TrimStart,
    TrimEnd,
    RemoveClip,
    RippleClip,
    SlipEarlier,
    SlipLater,
    FadeIn,
    FadeOut,
    CrossFade,
    ClipLouder,
    ClipQuieter,
    MuteClip,
    AddToTimeline,
    AddTrack,
    HideTrack,
    MuteTrack,
    LockTrack,
    Snap,
    ZoomTimelineIn,
    ZoomTimelineOut,
    FitTimeline,
    PreviousCut,
    NextCut,
    SetKey,
    EaseKeys,
    ClearKeys,
    KeysEarlier,
    KeysLater,
    RaiseKeys,
    LowerKeys,
    Palette,
    Shortcuts,
    About,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// What it does.
    pub(crate) command: Command,
    /// Where it is listed.
    pub(crate) group: Group,
    /// What it is called; "…" at the end when it asks for something first.
    pub(crate) name: &'static str,
    /// What it does, in a sentence without a full stop.
    pub(crate) tip: &'static str,
    /// Its icon.
    pub(crate) icon: Option<&'static str>,
    /// Its keys, the usual ones first.
    pub(crate) keys: &'static [KeyboardShortcut],
}

const NONE: Modifiers = Modifiers::NONE;
const CTRL: Modifiers = Modifiers::COMMAND;
const SHIFT: Modifiers = Modifiers::SHIFT;
const ALT: Modifiers = Modifiers::ALT;
const CTRL_SHIFT: Modifiers = Modifiers::COMMAND.plus(Modifiers::SHIFT);

const fn key(modifiers: Modifiers, key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(modifiers, key)
}

macro_rules! table {
    ($($group:ident: $command:expr, $name:literal, $tip:literal, $icon:expr, [$($keys:expr),*];)*) => {
        &[$(Entry {
            command: $command,
            group: Group::$group,
            name: $name,
            tip: $tip,
            icon: $icon,
            keys: &[$($keys),*],
        }),*]
    };
}

/// The table.
pub(crate) const TABLE: &[Entry] = table! {
    File: Command::AddMedia, "Add picture or clip…", "Brings a photograph, or a frame of a clip, into the project", Some(icons::IMAGE_PLUS), [key(CTRL, Key::I)];
    File: Command::OpenDocument, "Open project…", "Opens a project file", Some(icons::FOLDER_OPEN), [key(CTRL, Key::O)];
    File: Command::OpenPictures, "Open project of pictures…", "Opens the project that made a folder of PNG or OpenEXR pictures", None, [];
    File: Command::Save, "Save", "Saves the project; rendering it from a terminal gives the same frames", Some(icons::SAVE), [key(CTRL, Key::S)];
    File: Command::SaveAs, "Save as…", "Saves the project under another name, with its pictures", Some(icons::SAVE_ALL), [key(CTRL_SHIFT, Key::S)];
    File: Command::Versions, "Earlier versions…", "Shows what the project was when it was saved before", Some(icons::HISTORY), [];
    File: Command::FindMissing, "Find missing files…", "Says which files of the project are not where they were, and finds them", Some(icons::FILE_WARNING), [];
    File: Command::CloseProject, "Close project", "Goes back to the first screen", None, [key(CTRL, Key::W)];
    File: Command::Quit, "Quit", "Closes the window", None, [key(CTRL, Key::Q)];
    Edit: Command::Undo, "Undo", "Takes the last edit back", Some(icons::UNDO_2), [key(CTRL, Key::Z)];
    Edit: Command::Redo, "Redo", "Makes the edit last taken back again", Some(icons::REDO_2), [key(CTRL_SHIFT, Key::Z), key(CTRL, Key::Y)];
    Edit: Command::Delete, "Delete", "Removes what is chosen: keys or a clip on the timeline, a click or a region in the picture", Some(icons::TRASH_2), [key(NONE, Key::Delete), key(NONE, Key::Backspace)];
    Edit: Command::CopyKeys, "Copy keys", "Puts the chosen keys on the clipboard", Some(icons::COPY), [key(CTRL, Key::C)];
    Edit: Command::PasteKeys, "Paste", "Puts keys where the playhead is, or a picture into the project", Some(icons::CLIPBOARD_PASTE), [key(CTRL, Key::V)];
    Edit: Command::RemoveRegion, "Remove region", "Removes the chosen click, or the chosen region", None, [];
    Edit: Command::RemoveItem, "Remove picture", "Takes the picture and what moves in it out of the project", None, [];
    Edit: Command::PreviousRegion, "Previous region", "Chooses the region before", None, [key(NONE, Key::OpenBracket)];
    Edit: Command::NextRegion, "Next region", "Chooses the region after", None, [key(NONE, Key::CloseBracket)];
    Edit: Command::RaiseRegion, "Bring region forward", "Lays the region over the one above it", Some(icons::ARROW_UP), [key(CTRL, Key::CloseBracket)];
    Edit: Command::LowerRegion, "Send region back", "Lays the region under the one below it", Some(icons::ARROW_DOWN), [key(CTRL, Key::OpenBracket)];
    Edit: Command::NextCandidate, "Next shape", "Takes the next thing that the clicks may mean", None, [key(NONE, Key::C)];
    Edit: Command::PreviousCandidate, "Previous shape", "Takes the thing before of those that the clicks may mean", None, [key(SHIFT, Key::C)];
    Edit: Command::AnimateFrame, "Animate this frame", "Takes the frame of the clip that is shown for the one that moves", Some(icons::CLAPPERBOARD), [];
    View: Command::ZoomIn, "Zoom in", "Shows the picture larger", Some(icons::ZOOM_IN), [key(NONE, Key::Plus), key(NONE, Key::Equals)];
    View: Command::ZoomOut, "Zoom out", "Shows the picture smaller", Some(icons::ZOOM_OUT), [key(NONE, Key::Minus)];
    View: Command::ZoomFit, "Zoom to fit", "Shows the whole picture", Some(icons::MAXIMIZE), [key(NONE, Key::F)];
    View: Command::ZoomPixels, "Zoom to pixels", "Shows each pixel of the picture as one of the screen", Some(icons::SCAN), [key(NONE, Key::Num1)];
    View: Command::ViewNext, "Change mask view", "Shows regions as tints, as a matte, or not at all", Some(icons::LAYERS), [key(NONE, Key::M)];
    View: Command::Theme(ThemeChoice::Dark), "Dark colours", "Dark around the pictures", Some(icons::MOON), [];
    View: Command::Theme(ThemeChoice::Light), "Light colours", "Light around the pictures", Some(icons::SUN), [];
    View: Command::Theme(ThemeChoice::System), "Colours of the desktop", "Dark or light as the desktop says", Some(icons::MONITOR), [];
    View: Command::LargerText, "Larger text", "Makes everything in the window larger", None, [key(CTRL, Key::Plus), key(CTRL, Key::Equals)];
    View: Command::SmallerText, "Smaller text", "Makes everything in the window smaller", None, [key(CTRL, Key::Minus)];
    View: Command::ShowPane(Pane::Canvas), "Show canvas", "Brings the picture forward", None, [];
    View: Command::ShowPane(Pane::Program), "Show program", "Brings the clip forward", None, [];
    View: Command::ShowPane(Pane::Media), "Show media", "Brings the project's pictures forward", None, [];
    View: Command::ShowPane(Pane::Inspector), "Show inspector", "Brings the controls of what is chosen forward", None, [];
    View: Command::ShowPane(Pane::Takes), "Show takes", "Brings the clips made so far forward", None, [];
    View: Command::ShowPane(Pane::Timeline), "Show timeline", "Brings the clips over time forward", None, [];
    View: Command::ShowPane(Pane::Jobs), "Show jobs", "Brings what is being rendered forward", None, [];
    View: Command::ShowPane(Pane::Models), "Show models", "Brings the installed models forward", None, [];
    View: Command::ResetLayout, "Reset the arrangement", "Puts every panel back where it was at first", Some(icons::LAYOUT_DASHBOARD), [];
    Tools: Command::ToolClick, "Pick tool", "A click adds what is under it", Some(icons::MOUSE_POINTER_CLICK), [key(NONE, Key::V)];
    Tools: Command::ToolLeaveOut, "Leave-out tool", "A click takes what is under it out of the region", Some(icons::CIRCLE_MINUS), [key(NONE, Key::X)];
    Tools: Command::ToolBrush, "Brush tool", "Paints the shape of the region", Some(icons::BRUSH), [key(NONE, Key::B)];
    Tools: Command::ToolErase, "Eraser tool", "Takes painted and found shape away", Some(icons::ERASER), [key(NONE, Key::E)];
    Tools: Command::ToolPan, "Hand tool", "Drags the picture about", Some(icons::HAND), [key(NONE, Key::H)];
    Tools: Command::NewRegion, "New region", "Lets the next click or stroke begin another region", Some(icons::CIRCLE_PLUS), [key(NONE, Key::R)];
    Timeline: Command::SplitClip, "Split clip", "Cuts the clip under the playhead in two", Some(icons::SCISSORS), [key(NONE, Key::S)];
    Timeline: Command::TrimStart, "Trim start to playhead", "Cuts off what comes before the playhead", None, [key(NONE, Key::Q)];
    Timeline: Command::TrimEnd, "Trim end to playhead", "Cuts off what comes after the playhead", None, [key(NONE, Key::W)];
    Timeline: Command::RemoveClip, "Remove clip", "Takes the chosen clip off the timeline; its shot stays", Some(icons::TRASH_2), [];
    Timeline: Command::RippleClip, "Remove clip and gap", "Takes the chosen clip off and closes the gap", None, [key(SHIFT, Key::Delete)];
    Timeline: Command::SlipEarlier, "Slip one frame earlier", "Lets the chosen clip show what comes before in its shot; drag it with Alt held for more", None, [key(ALT, Key::ArrowLeft)];
    Timeline: Command::SlipLater, "Slip one frame later", "Lets the chosen clip show what comes after in its shot; drag it with Alt held for more", None, [key(ALT, Key::ArrowRight)];
    Timeline: Command::FadeIn, "Fade in", "Lets the chosen clip appear from what lies under it, or cut in again", None, [];
    Timeline: Command::FadeOut, "Fade out", "Lets the chosen clip give way to what lies under it, or cut away again", None, [];
    Timeline: Command::CrossFade, "Cross-fade", "Lets the chosen clip appear out of the one that ends where it begins, or cut in again", Some(icons::COLUMNS_2), [key(CTRL_SHIFT, Key::D)];
    Timeline: Command::ClipLouder, "Louder clip", "Makes the sound of the chosen clip three decibels louder", None, [key(ALT, Key::ArrowUp)];
    Timeline: Command::ClipQuieter, "Quieter clip", "Makes the sound of the chosen clip three decibels quieter", None, [key(ALT, Key::ArrowDown)];
    Timeline: Command::MuteClip, "Mute clip", "Silences the chosen clip, or lets it be heard again", None, [];
    Timeline: Command::AddToTimeline, "Add to timeline", "Puts the chosen shot or clip at the end of the timeline", Some(icons::LIST_VIDEO), [key(NONE, Key::Period)];
    Timeline: Command::AddTrack, "Add track", "Adds a track on top", Some(icons::LAYERS), [];
    Timeline: Command::HideTrack, "Hide or show track", "Leaves the pictures of a track out, or shows them again: that of the chosen clip, else the lowest", Some(icons::EYE_OFF), [];
    Timeline: Command::MuteTrack, "Mute or unmute track", "Leaves the sound of that track out, or lets it be heard again", None, [];
    Timeline: Command::LockTrack, "Lock or unlock track", "Keeps the clips of that track as they are, or lets them be changed again", Some(icons::LOCK), [];
    Timeline: Command::SetKey, "Set key", "Keeps the magnitude of the chosen region at the playhead, so that it can change from there", Some(icons::DIAMOND_PLUS), [key(SHIFT, Key::K)];
    Timeline: Command::EaseKeys, "Change easing of keys", "Lets the magnitude hold, go straight or go smoothly from key to key", Some(icons::SPLINE), [];
    Timeline: Command::ClearKeys, "Remove all keys", "Leaves the magnitude at the playhead for the whole shot", None, [];
    Timeline: Command::KeysEarlier, "Keys one frame earlier", "Moves the chosen keys back by a frame", None, [key(CTRL, Key::ArrowLeft)];
    Timeline: Command::KeysLater, "Keys one frame later", "Moves the chosen keys on by a frame", None, [key(CTRL, Key::ArrowRight)];
    Timeline: Command::RaiseKeys, "Raise keys", "Gives the chosen keys five hundredths more", None, [key(CTRL, Key::ArrowUp)];
    Timeline: Command::LowerKeys, "Lower keys", "Gives the chosen keys five hundredths less", None, [key(CTRL, Key::ArrowDown)];
    Timeline: Command::Snap, "Snap", "Lets edges and the playhead snap to each other", Some(icons::MAGNET), [key(NONE, Key::N)];
    Timeline: Command::PreviousCut, "To the previous cut", "Moves the playhead to the edge before", None, [key(NONE, Key::ArrowUp)];
    Timeline: Command::NextCut, "To the next cut", "Moves the playhead to the edge after", None, [key(NONE, Key::ArrowDown)];
    Timeline: Command::ZoomTimelineIn, "Zoom timeline in", "Shows less time, larger", Some(icons::ZOOM_IN), [];
    Timeline: Command::ZoomTimelineOut, "Zoom timeline out", "Shows more time, smaller", Some(icons::ZOOM_OUT), [];
    Timeline: Command::FitTimeline, "Fit timeline", "Shows the whole timeline", Some(icons::MAXIMIZE), [key(SHIFT, Key::F)];
    Render: Command::Animate, "Animate", "Makes the clip", Some(icons::SPARKLES), [key(CTRL, Key::Enter)];
    Render: Command::Retake, "Retake", "Makes the clip once more with another seed", Some(icons::REFRESH_CW), [key(CTRL_SHIFT, Key::Enter)];
    Render: Command::Extend, "Extend from the last frame", "Begins a new shot with the last frame of the clip", None, [];
    Render: Command::StopRender, "Stop", "Stops what is being made; it can go on later", Some(icons::CIRCLE_STOP), [key(CTRL, Key::Period)];
    Render: Command::Export, "Export…", "Writes the clip to a file", Some(icons::UPLOAD), [key(CTRL, Key::E)];
    Render: Command::ExportTimeline, "Export timeline…", "Writes the whole timeline to one file", None, [key(CTRL_SHIFT, Key::E)];
    Render: Command::PauseQueue, "Pause or go on with the queue", "Lets no further job begin, or lets them begin again", Some(icons::TIMER), [];
    Render: Command::RetryJob, "Try the job again", "Goes on with the chosen job, or with the last one that did not end well", Some(icons::ROTATE_CCW), [];
    Render: Command::JobEarlier, "Job earlier", "Lets the chosen job, or the last in the line, have its turn earlier", Some(icons::ARROW_UP), [];
    Render: Command::JobLater, "Job later", "Lets the chosen job, or the first in the line, have its turn later", Some(icons::ARROW_DOWN), [];
    Render: Command::ClearFinished, "Clear finished jobs", "Takes the jobs that are done off the list; their files stay", None, [];
    Render: Command::CompareTakes, "Compare takes", "Shows the take before beside the one that is shown, or that one alone again", Some(icons::COLUMNS_2), [key(SHIFT, Key::Y)];
    Render: Command::StarTake, "Star take", "Keeps the take that is shown among the favourites, or no longer", Some(icons::STAR), [];
    Render: Command::UseTake, "Use settings of take", "Brings what made the take that is shown back into the project", None, [];
    Render: Command::RenderTakeAgain, "Render take again", "Makes the frames of the latest take that lost them again", None, [];
    Render: Command::Offline, "Never use the network", "Lets no model be fetched, or lets them be fetched again", None, [];
    Play: Command::PlayPause, "Play or pause", "Plays the clip, or stops it where it is", Some(icons::PLAY), [key(NONE, Key::Space)];
    Play: Command::PlayBackward, "Play backward", "Plays backward, faster each time", Some(icons::REWIND), [key(NONE, Key::J)];
    Play: Command::Pause, "Pause", "Stops the clip where it is", Some(icons::PAUSE), [key(NONE, Key::K)];
    Play: Command::PlayForward, "Play forward", "Plays forward, faster each time", Some(icons::FAST_FORWARD), [key(NONE, Key::L)];
    Play: Command::StepBack, "One frame back", "Shows the frame before", Some(icons::STEP_BACK), [key(NONE, Key::ArrowLeft)];
    Play: Command::StepForward, "One frame forward", "Shows the frame after", Some(icons::STEP_FORWARD), [key(NONE, Key::ArrowRight)];
    Play: Command::GoToStart, "To the first frame", "Shows the beginning", Some(icons::SKIP_BACK), [key(NONE, Key::Home)];
    Play: Command::GoToEnd, "To the last frame", "Shows the end", Some(icons::SKIP_FORWARD), [key(NONE, Key::End)];
    Play: Command::MarkIn, "Mark in", "Lets what is exported begin with the frame that is shown", None, [key(NONE, Key::I)];
    Play: Command::MarkOut, "Mark out", "Lets what is exported end with the frame that is shown", None, [key(NONE, Key::O)];
    Play: Command::ClearMarks, "Clear in and out", "Lets all of it be exported again", None, [key(ALT, Key::X)];
    Play: Command::GoToIn, "To the in point", "Shows the first frame of the marked part", None, [key(SHIFT, Key::I)];
    Play: Command::GoToOut, "To the out point", "Shows the last frame of the marked part", None, [key(SHIFT, Key::O)];
    Play: Command::Repeat, "Repeat", "Plays from the beginning again at the end", Some(icons::REPEAT), [];
    Play: Command::PlayTimeline, "Play the timeline", "Shows the timeline in the program monitor, or the chosen take", Some(icons::LIST_VIDEO), [key(SHIFT, Key::T)];
    Play: Command::PlaySource, "Play the source", "Shows the clip that the picture is a frame of by itself, or the chosen take", Some(icons::CLAPPERBOARD), [key(SHIFT, Key::S)];
    Play: Command::Mute, "Mute", "Plays without sound, or with it again", Some(icons::VOLUME_2), [key(SHIFT, Key::M)];
    Play: Command::Louder, "Louder", "Plays everything louder", None, [];
    Play: Command::Quieter, "Quieter", "Plays everything quieter", None, [];
    Help: Command::Palette, "All commands…", "Finds a command by its name", Some(icons::COMMAND), [key(CTRL, Key::P), key(SHIFT, Key::F1)];
    Help: Command::Shortcuts, "Keyboard shortcuts", "Lists what the keys do", Some(icons::KEYBOARD), [key(NONE, Key::F1)];
    Help: Command::About, "About Kinora", "Says what this is and what it is made of", Some(icons::INFO), [];
};

impl Command {
    /// Its line of the table.
    pub(crate) fn entry(self) -> Option<&'static Entry> {
        TABLE.iter().find(|entry| entry.command == self)
    }

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        self.entry().map_or("", |entry| entry.name)
    }

    /// Its usual keys, as this system writes them.
    pub(crate) fn keys_text(self, ctx: &Context) -> String {
        let first = self.entry().and_then(|entry| entry.keys.first());
        first.map(|keys| written(ctx, keys)).unwrap_or_default()
    }

    /// Its name with its keys, for tooltips.
    pub(crate) fn tip(self, ctx: &Context) -> String {
        let Some(entry) = self.entry() else { return String::new() };
        let keys = self.keys_text(ctx);
        if keys.is_empty() { entry.tip.to_owned() } else { format!("{} ({keys})", entry.tip) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_command_is_listed_once_and_no_key_means_two_things() {
        let mut commands = HashSet::new();
        let mut names = HashSet::new();
        let mut keys = HashSet::new();
        for entry in TABLE {
            assert!(commands.insert(entry.command), "{:?} twice", entry.command);
            assert!(names.insert(entry.name), "{} twice", entry.name);
            assert!(!entry.tip.ends_with('.') && !entry.tip.is_empty(), "{}", entry.name);
            assert!(entry.name.chars().next().is_some_and(char::is_uppercase), "{}", entry.name);
            for key in entry.keys {
                let text = format!("{:?} {:?}", key.modifiers, key.logical_key);
                assert!(keys.insert(text.clone()), "{text} twice");
            }
        }
        assert!(Group::ALL.iter().all(|group| TABLE.iter().any(|entry| entry.group == *group)));
    }
}
