//! Canonical XML 1.1 without comments (W3C, 2 May 2008): the bytes that a signature of a maker's
//! manifest is over.
//!
//! Only what such a manifest has: elements, attributes, text. Instructions, attributes of the
//! `xml` prefix and namespaces that are taken back are refused, not guessed at. A slip here makes
//! a sound signature fail and no other pass: what is compared is read from the same tree.

use roxmltree::{Attribute, Document, Namespace, Node};
use std::collections::BTreeMap;

/// Deepest element.
const MAX_DEPTH: usize = 16;
/// Nodes of a document.
const MAX_NODES: u32 = 1 << 14;
/// Namespaces in scope of one element.
const MAX_NAMESPACES: usize = 16;
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Reads a document that has a canonical form here, or says what it has that has none.
pub(super) fn read(text: &str) -> Result<Document<'_>, String> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        ..Default::default()
    };
    let document =
        Document::parse_with_options(text, options).map_err(|error| error.to_string())?;
    for node in document.descendants() {
        if node.is_pi() {
            return Err("it has a processing instruction".to_owned());
        }
        if node.attributes().any(|one| one.namespace() == Some(XML)) {
            return Err("it has an attribute of the prefix xml".to_owned());
        }
        let mut namespaces = node.namespaces();
        if namespaces.any(|one| one.uri().is_empty()) {
            return Err("it takes a namespace back".to_owned());
        }
        if node.is_element() && node.namespaces().len() > MAX_NAMESPACES {
            return Err(format!("it has over {MAX_NAMESPACES} namespaces"));
        }
        if node.is_element() && node.ancestors().nth(MAX_DEPTH).is_some() {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
    }
    Ok(document)
}

/// The canonical form of `apex`, in the namespaces around it, without the element `left_out`.
pub(super) fn canonical(apex: Node<'_, '_>, left_out: Option<Node<'_, '_>>) -> String {
    let mut out = String::new();
    element(apex, true, left_out, &mut out);
    out
}

fn element(node: Node<'_, '_>, is_apex: bool, left_out: Option<Node<'_, '_>>, out: &mut String) {
    let name = written_name(node);
    out.push('<');
    out.push_str(name);
    // 2.2, namespace axis: what the parent has rendered is not repeated.
    let around = node.parent_element().filter(|_| !is_apex);
    let is_known = |one: &Namespace<'_>| {
        around.is_some_and(|parent| parent.lookup_namespace_uri(one.name()) == Some(one.uri()))
    };
    let scope = node.namespaces().filter(|one| one.uri() != XML);
    let new: BTreeMap<_, _> = scope
        .filter(|one| !is_known(one))
        .map(|one| (one.name().unwrap_or_default(), one.uri()))
        .collect();
    for (prefix, uri) in new {
        out.push_str(if prefix.is_empty() {
            " xmlns"
        } else {
            " xmlns:"
        });
        out.push_str(prefix);
        value(uri, out);
    }
    let mut attributes: Vec<_> = node.attributes().collect();
    attributes.sort_by_key(|one| (one.namespace().unwrap_or_default(), one.name()));
    for one in attributes {
        out.push(' ');
        out.push_str(attribute_name(node, one));
        value(one.value(), out);
    }
    out.push('>');
    for child in node.children() {
        if child.is_element() && Some(child) != left_out {
            element(child, false, left_out, out);
        } else if child.is_text() {
            text(child.text().unwrap_or_default(), out);
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// With its prefix as it was chosen: the canonical form keeps prefixes, the tree does not.
fn written_name<'i>(node: Node<'_, 'i>) -> &'i str {
    let source: &'i str = node.document().input_text();
    let from = source.get(node.range().start + 1..).unwrap_or_default();
    let end = from.find(|one: char| one.is_ascii_whitespace() || matches!(one, '/' | '>'));
    from.get(..end.unwrap_or(from.len())).unwrap_or_default()
}

fn attribute_name<'i>(node: Node<'_, 'i>, attribute: Attribute<'_, 'i>) -> &'i str {
    let source: &'i str = node.document().input_text();
    source.get(attribute.range_qname()).unwrap_or_default()
}

/// 2.3, attribute nodes.
fn value(of: &str, out: &mut String) {
    out.push_str("=\"");
    for one in of.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            _ => out.push(one),
        }
    }
    out.push('"');
}

/// 2.3, text nodes.
fn text(of: &str, out: &mut String) {
    for one in of.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#xD;"),
            _ => out.push(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{canonical, read};

    fn whole(text: &str) -> String {
        canonical(read(text).unwrap().root_element(), None)
    }

    #[test]
    fn it_is_what_the_recommendations_own_examples_are() {
        // Canonical XML 1.1, 3.3 (without what needs a DTD) and 3.4.
        let tags = "<doc>\n   <e1   />\n   <e2   ></e2>\n   <e3   name = \"elem3\"   id=\"elem3\"   />\n   \
            <e4   name=\"elem4\"   id=\"elem4\"   ></e4>\n   \
            <e5 a:attr=\"out\" b:attr=\"sorted\" attr2=\"all\" attr=\"I'm\"\n      xmlns:b=\"http://www.ietf.org\"\n      \
            xmlns:a=\"http://www.w3.org\"\n      xmlns=\"http://example.org\"/>\n</doc>";
        let want = "<doc>\n   <e1></e1>\n   <e2></e2>\n   <e3 id=\"elem3\" name=\"elem3\"></e3>\n   \
            <e4 id=\"elem4\" name=\"elem4\"></e4>\n   \
            <e5 xmlns=\"http://example.org\" xmlns:a=\"http://www.w3.org\" xmlns:b=\"http://www.ietf.org\" \
            attr=\"I'm\" attr2=\"all\" b:attr=\"sorted\" a:attr=\"out\"></e5>\n</doc>";
        assert_eq!(whole(tags), want);
        let characters = "<doc>\r\n<text>First line&#x0d;&#10;Second line</text><value>&#x32;</value>\
            <compute><![CDATA[value>\"0\" && value<\"10\" ?\"valid\":\"error\"]]></compute>\
            <compute expr='value>\"0\" &amp;&amp; value&lt;\"10\" ?\"valid\":\"error\"'>valid</compute>\
            <norm attr=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/></doc>";
        let want = "<doc>\n<text>First line&#xD;\nSecond line</text><value>2</value>\
            <compute>value&gt;\"0\" &amp;&amp; value&lt;\"10\" ?\"valid\":\"error\"</compute>\
            <compute expr=\"value>&quot;0&quot; &amp;&amp; value&lt;&quot;10&quot; ?&quot;valid&quot;:&quot;error&quot;\">valid</compute>\
            <norm attr=\" '    &#xD;&#xA;&#x9;   ' \"></norm></doc>";
        assert_eq!(whole(characters), want);
        assert_eq!(whole("<a><!-- one -->x<!-- two --></a>"), "<a>x</a>");
    }

    #[test]
    fn a_part_carries_the_namespaces_around_it_and_repeats_none() {
        let text = "<a xmlns=\"u:a\" xmlns:p=\"u:p\"><b xmlns:q=\"u:q\" xmlns:p=\"u:p\"><p:c/></b><d/></a>";
        let document = read(text).unwrap();
        let part = document.root_element().first_child().unwrap();
        let want = "<b xmlns=\"u:a\" xmlns:p=\"u:p\" xmlns:q=\"u:q\"><p:c></p:c></b>";
        assert_eq!(canonical(part, None), want);
        let want = "<a xmlns=\"u:a\" xmlns:p=\"u:p\"><d></d></a>";
        assert_eq!(canonical(document.root_element(), Some(part)), want);
        let again = whole(text);
        assert_eq!(whole(&again), again);
    }

    #[test]
    fn what_has_no_canonical_form_here_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(17), "</a>".repeat(17));
        let many: Vec<_> = (0..17).map(|n| format!(" xmlns:n{n}=\"u\"")).collect();
        let many = many.concat();
        for text in [
            "<a><?do it?></a>",
            "<a xml:lang=\"en\"/>",
            "<a xmlns=\"u\"><b xmlns=\"\"/></a>",
            "<!DOCTYPE a [<!ENTITY e \"x\">]><a>&e;</a>",
            "<a><b></a>",
            &deep,
            &format!("<a{many}/>"),
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
