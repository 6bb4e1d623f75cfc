//! A page as an HTML parser sees it.

use html5ever::tendril::TendrilSink as _;
use html5ever::{ParseOpts, parse_document};
use markup5ever_rcdom::{Handle, NodeData, RcDom};
use std::collections::BTreeMap;

/// An element, without its place in the tree.
#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Element {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// Every element in order, and what the parser complained of.
pub(crate) fn read(page: &str) -> (Vec<Element>, Vec<String>) {
    let options = ParseOpts::default();
    let dom = parse_document(RcDom::default(), options).one(page);
    let mut elements = Vec::new();
    walk(&dom.document, &mut elements);
    let errors = dom.errors.borrow();
    let errors = errors.iter().map(ToString::to_string).collect();
    (elements, errors)
}

fn walk(node: &Handle, out: &mut Vec<Element>) {
    if let NodeData::Element { name, attrs, .. } = &node.data {
        let attributes = attrs.borrow();
        let attributes = attributes
            .iter()
            .map(|one| (one.name.local.to_string(), one.value.to_string()));
        let mut text = String::new();
        gather(node, &mut text);
        out.push(Element {
            name: name.local.to_string(),
            attributes: attributes.collect(),
            text,
        });
    }
    for child in node.children.borrow().iter() {
        walk(child, out);
    }
}

fn gather(node: &Handle, out: &mut String) {
    if let NodeData::Text { contents } = &node.data {
        out.push_str(&contents.borrow());
    }
    for child in node.children.borrow().iter() {
        gather(child, out);
    }
}

/// What holds of every page, whatever the file says.
#[track_caller]
pub(crate) fn sound(page: &str) -> Vec<Element> {
    let (elements, errors) = read(page);
    assert!(errors.is_empty(), "{errors:?}");
    let mut ids = Vec::new();
    for element in &elements {
        let name = element.name.as_str();
        let forbidden = [
            "script",
            "iframe",
            "object",
            "embed",
            "img",
            "link",
            "base",
            "form",
            "input",
            "audio",
            "video",
            "source",
            "image",
            "use",
            "foreignObject",
        ];
        assert!(!forbidden.contains(&name), "{element:?}");
        for (key, value) in &element.attributes {
            assert!(
                !key.starts_with("on") && key != "src" && key != "style",
                "{element:?}"
            );
            assert!(key != "href" || value.starts_with('#'), "{element:?}");
            let address = value.contains("://") || value.contains("javascript:");
            assert!(!address, "{element:?}");
        }
        ids.extend(element.attribute("id").map(str::to_owned));
    }
    let style = elements
        .iter()
        .find(|element| element.name == "style")
        .unwrap();
    assert!(!style.text.contains("url(") && !style.text.contains("@import"));
    accessible(&elements, &ids);
    assert!(
        !page
            .chars()
            .any(|one| one != '\n' && merestone_verify::escape::is_hostile(one))
    );
    elements
}

#[track_caller]
fn accessible(elements: &[Element], ids: &[String]) {
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an id stands twice in {ids:?}");
    let html = elements
        .iter()
        .find(|element| element.name == "html")
        .unwrap();
    assert_eq!(html.attribute("lang"), Some("en"));
    let mut level = 0;
    for element in elements {
        for id in element
            .attribute("aria-labelledby")
            .unwrap_or_default()
            .split(' ')
        {
            assert!(
                id.is_empty() || ids.iter().any(|known| known == id),
                "{element:?}"
            );
        }
        if let Some(id) = element
            .attribute("href")
            .and_then(|to| to.strip_prefix('#'))
        {
            assert!(ids.iter().any(|known| known == id), "{element:?}");
        }
        if element.name == "th" {
            assert!(element.attribute("scope").is_some(), "{element:?}");
        }
        let heading = element
            .name
            .strip_prefix('h')
            .and_then(|n| n.parse::<u32>().ok());
        if let Some(next) = heading {
            assert!(next <= level + 1, "{element:?} after level {level}");
            level = next;
        }
    }
    let headings = |name: &str| elements.iter().filter(|one| one.name == name).count();
    assert_eq!(headings("h1"), 1);
    assert_eq!(headings("main"), 1);
}
